"""Apache's httpd over plain TCP and TLS. No wheel brings it (Debian: apt install apache2-bin)."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers.program import Identity, Program, Site, free_port, program, running

_MODULES = ("mpm_event", "authz_core", "dir", "deflate", "filter", "alias", "ssl")
# A new server starts with each test run: what keeps its state between runs is left out.
_CONFIG = """
ServerRoot {folder}
ServerName localhost
PidFile pid
DefaultRuntimeDir {folder}
Mutex file:{folder} default
ErrorLog error.log
Listen 127.0.0.1:{port}
{modules}
{user}
DocumentRoot {folder}/www
<Directory {folder}/www>
    Require all granted
</Directory>
Alias /deflated {folder}/www
<Location /deflated>
    SetOutputFilter DEFLATE
</Location>
Redirect /moved /
KeepAlive On
MaxKeepAliveRequests 0
{tls}
"""
_TLS = """
SSLEngine on
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}
SSLSessionCache none
"""


def _modules_folder(command: str) -> Path:
    """As it was built with; on Debian beside the programs' libraries."""
    said = subprocess.run([command, "-V"], capture_output=True, text=True).stdout
    root = re.search(r'HTTPD_ROOT="(.+)"', said)
    places = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"]
    places += [f"{root[1]}/modules"] if root else []
    found = next((Path(place) for place in places if (Path(place) / "mod_ssl.so").exists()), None)
    if found is None:
        pytest.skip("Apache has no mod_ssl here")
    return found


@contextmanager
def apache(folder: Path, identity: Identity | None = None) -> Iterator[Site]:
    """Start it, and stop it."""
    command = program("apache2", "httpd", "/usr/sbin/httpd")
    modules = _modules_folder(command)
    (folder / "www").mkdir(parents=True)
    port = free_port()
    text = _CONFIG.format(
        folder=folder,
        port=port,
        modules="\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in _MODULES),
        user='User "#65534"\nGroup "#65534"' if os.geteuid() == 0 else "",
        tls="" if identity is None else _TLS.format(certificate=identity.certificate, key=identity.key),
    )
    (folder / "httpd.conf").write_text(text)
    started = Program(
        [command, "-D", "FOREGROUND", "-f", str(folder / "httpd.conf")], port, folder / "error.log"
    )
    with running(started):
        yield Site.of(started, folder / "www", identity)
