"""nginx as users run it, over plain TCP and TLS."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CONFIG = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    tcp_nopush off;
    {temp}
    types {{ }}
    default_type application/octet-stream;
    gzip_proxied any;
    gzip_types application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        {tls}
        root {folder}/www;
        location /plain/ {{ alias {folder}/www/; max_ranges 0; }}
        location /gzipped/ {{ alias {folder}/www/; gzip on; gzip_min_length 1; max_ranges 0; }}
        location /untagged/ {{ alias {folder}/www/; etag off; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /loop/ {{ return 302 /loop/; }}
        location /busy/ {{ add_header Retry-After 1 always; return 503; }}
        location /silent/ {{ return 444; }}
    }}
}}
"""


def free_port() -> int:
    """One that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Nginx:
    """One running nginx; what is put into `www` it serves."""

    def __init__(self, folder: Path, scheme: str, port: int) -> None:
        self.www = folder / "www"
        self.url = f"{scheme}://localhost:{port}" if scheme == "https" else f"http://127.0.0.1:{port}"

    def put(self, name: str, data: bytes) -> str:
        """The URL of a file with this content."""
        (self.www / name).write_bytes(data)
        return f"{self.url}/{name}"


@contextmanager
def nginx(folder: Path, certificate: Path | None = None) -> Iterator[Nginx]:
    """Start it, wait until it listens, and stop it. Skips where it is not installed."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    (folder / "www").mkdir(parents=True)
    port = free_port()
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = " ".join(f"{name}_temp_path {folder}/{name};" for name in names)
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if certificate else ""
    text = _CONFIG.format(folder=folder, port=port, temp=temp, tls=tls)
    if certificate:
        text = text.replace(f"127.0.0.1:{port};", f"127.0.0.1:{port} ssl;")
    (folder / "nginx.conf").write_text(text)
    folder.chmod(0o755)
    process = subprocess.Popen(
        [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"), "-g", "user root;"]
    )
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        assert process.poll() is None, (folder / "error.log").read_text()
        yield Nginx(folder, "https" if certificate else "http", port)
    finally:
        process.terminate()
        process.wait()
