"""The storage services by the scheme of their URIs. The class of a service is imported at its first use.

Services of other distributions register a class by the entry point group ``rangeio.services``, whose names are schemes.
"""

import os
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from rangeio.errors import ConfigInvalidError, closest
from rangeio.service import Service

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "rangeio.services"
_OTHERS = f"A package that is installed in this environment adds a scheme by the entry point group {GROUP!r}"
WITHOUT_NETWORK = ("fs", "memory")
# Network services need TLS, proxies and more, which local files do not.
_OURS = {
    "fs": "rangeio.services.local:LocalService",
    "memory": "rangeio.services.memory:MemoryService",
    "http": "rangeio.services.http:HttpService",
    "https": "rangeio.services.http:HttpService",
    "s3": "rangeio.services.s3:S3Service",
    "gs": "rangeio.services.gcs:GcsService",
    "hf": "rangeio.services.hf:HfService",
    **dict.fromkeys(("az", "azure", "abfs", "abfss", "wasb", "wasbs"), "rangeio.services.azure:AzureService"),
    "hdfs": "rangeio.services.hdfs:HdfsService",
    "webhdfs": "rangeio.services.webhdfs:WebHdfsService",
    "swebhdfs": "rangeio.services.webhdfs:SecureWebHdfsService",
}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # one letter alone is a drive: C://


class Located(NamedTuple):
    """A URI: the scheme of its service, the options of the service that it contains, and the path in the service."""

    scheme: str
    options: dict[str, Any]
    path: str


def schemes() -> list[str]:
    """The schemes of all services: ours, then those that other distributions register."""
    return [*_OURS, *sorted(point.name for point in _registered() if point.name not in _OURS)]


def service_class(scheme: str) -> type[Service]:
    """The service of a scheme. ConfigInvalidError if there is none, or if it cannot be imported."""
    if scheme in _OURS:
        module, _, name = _OURS[scheme].partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    for point in _registered():
        if point.name == scheme:
            return _loaded(point)
    raise ConfigInvalidError(f"unknown service {scheme!r}; {closest(scheme, schemes())}. {_OTHERS}")


def located(uri: str | os.PathLike[str]) -> Located:
    """Take a URI or a plain path apart. ConfigInvalidError for an unknown scheme, and for what its service refuses.

    >>> located("data/model.bin")
    Located(scheme='fs', options={}, path='data/model.bin')
    >>> located("file:///tmp/a%20b")
    Located(scheme='fs', options={}, path='/tmp/a b')
    >>> located("https://example.org/a?b")
    Located(scheme='https', options={}, path='https://example.org/a?b')
    >>> located("s3://bucket/a b%20c?d#e")
    Located(scheme='s3', options={'bucket': 'bucket'}, path='a b%20c?d#e')
    """
    text = os.fsdecode(uri)
    match = _URI.fullmatch(text)
    if match is None:
        return Located("fs", {}, text)
    scheme, rest = match[1].lower(), match[2]
    scheme = "fs" if scheme == "file" else scheme
    if scheme not in _OURS and scheme not in {point.name for point in _registered()}:
        known = ", ".join("file" if name == "fs" else name for name in schemes())
        raise ConfigInvalidError(
            f"unknown scheme {scheme!r}; known: {known}, or a path without a scheme. {_OTHERS}"
        )
    options, path = service_class(scheme).locate(scheme, rest)
    return Located(scheme, options, path)


def _registered() -> "list[EntryPoint]":
    from importlib.metadata import entry_points  # importing it takes longer than importing rangeio

    return [*entry_points(group=GROUP)]


def _loaded(point: "EntryPoint") -> type[Service]:
    try:
        return point.load()  # type: ignore[no-any-return]
    except Exception as error:
        raise ConfigInvalidError(
            f"the service {point.name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
