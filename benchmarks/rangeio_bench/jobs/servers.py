"""Servers of the jobs, each in a process of its own: `far`, as slow as a distant store, and `near`, nginx.

Both serve the files below a folder as `http://127.0.0.1:PORT/BUCKET/NAME`, for any BUCKET: so S3 clients read them too,
path-style and without signatures.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rangeio_bench.http.paced import Paced, counters

PACE = 50_000_000
"""Bytes per second of one connection to the far server."""
WAIT_S = 0.02
"""Its delay before the first byte of a response."""
BUCKET = "bench"

_NGINX = """
worker_processes 1;
daemon off;
pid {room}/pid;
error_log {room}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush off;
    keepalive_requests 100000000;
    types {{ }}
    default_type application/octet-stream;
    {temps}
    server {{ listen 127.0.0.1:{port}; location /{bucket}/ {{ alias {folder}/; }} }}
}}
"""


@contextmanager
def far(folder: Path) -> Iterator[str]:
    """The base URL of a folder on the far server. `counted(url)` tells its counters."""
    server = Paced(folder, pace=PACE, wait_s=WAIT_S)
    try:
        yield server.url
    finally:
        server.close()


def counted(url: str) -> tuple[int, int]:
    """Requests that the far server of this URL received, and bytes that it sent."""
    now = counters(urlsplit(url).port or 0)
    return now.requests, now.nbytes


@contextmanager
def near(folder: Path) -> Iterator[str]:
    """The base URL of a folder on nginx with one worker."""
    program = shutil.which("nginx", path="/usr/sbin:/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise OSError("nginx is not installed (apt-get install nginx-core)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as name:
        room = Path(name)
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temps = " ".join(f"{kind}_temp_path {room}/{kind};" for kind in names)
        config = _NGINX.format(room=room, temps=temps, port=port, bucket=BUCKET, folder=folder.resolve())
        (room / "nginx.conf").write_text(config)
        nginx = subprocess.Popen(
            [program, "-c", f"{room}/nginx.conf", "-e", f"{room}/error.log", "-g", "user root;"]
        )
        try:
            _wait_for(port, nginx)
            yield f"http://127.0.0.1:{port}/{BUCKET}"
        finally:
            nginx.terminate()
            nginx.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.02)
    raise OSError("nginx does not listen")
