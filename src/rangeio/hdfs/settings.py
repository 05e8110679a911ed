"""The settings of Hadoop's clients: core-site.xml and hdfs-site.xml in the folder HADOOP_CONF_DIR."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from rangeio.errors import ConfigInvalidError

_FILES = ("core-site.xml", "hdfs-site.xml")
_VARIABLE = re.compile(r"\$\{([^${}]+)\}")
# Values may refer to others, which may refer to others.
_MOST_DEPTH = 20


class Settings:
    """The settings in a folder; none without a folder. Files that are missing are not an error.

    place: where they were found, for display; empty if there are none.
    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        """given: over those of the folder, which is HADOOP_CONF_DIR, else $HADOOP_HOME/etc/hadoop."""
        self._values: dict[str, str] = {}
        self._folder = _folder_of_environment()
        for name in _FILES if self._folder else ():
            self._values |= _read(Path(self._folder or "") / name)
        self.place = ", ".join([*["settings="][: bool(given)], *[repr(self._folder)][: bool(self._values)]])
        self._values |= given or {}

    def get(self, name: str) -> str | None:
        """The value, with ${name} replaced; None if it is not set or empty."""
        value = self._values.get(name)
        for _ in range(_MOST_DEPTH):
            if value is None or not _VARIABLE.search(value):
                break
            value = _VARIABLE.sub(self._replaced, value)
        return (value or "").strip() or None

    def _replaced(self, match: "re.Match[str]") -> str:
        name = match[1]
        if name.startswith("env."):
            return os.environ.get(name[4:], "")
        return self._values.get(name, "")

    def name_nodes(self, service: str, kind: str) -> list[str]:
        """host:port of each name node of a nameservice; empty if there is no such nameservice. kind: http, https or
        rpc.
        """
        ids = self.get(f"dfs.ha.namenodes.{service}")
        if ids is not None:
            keys = [f"{service}.{name.strip()}" for name in ids.split(",") if name.strip()]
        elif service in re.split(r"\s*,\s*", self.get("dfs.nameservices") or ""):
            keys = [service]
        else:
            return []
        found = [self.get(f"dfs.namenode.{kind}-address.{key}") for key in keys]
        if None in found:
            raise ConfigInvalidError(
                f"dfs.namenode.{kind}-address is not set for each name node of {service!r} in {self._folder!r}"
            )
        return [address for address in found if address is not None]

    def default_cluster(self) -> str | None:
        """host:port or the nameservice of fs.defaultFS; None if that is another file system or not set."""
        found = re.fullmatch(r"(?:hdfs|s?webhdfs)://([^/]+)/?.*", self.get("fs.defaultFS") or "")
        return None if found is None else found[1]


def _folder_of_environment() -> str | None:
    environ: Mapping[str, str] = os.environ
    if environ.get("HADOOP_CONF_DIR"):
        return environ["HADOOP_CONF_DIR"]
    home = environ.get("HADOOP_HOME")
    return str(Path(home) / "etc" / "hadoop") if home else None


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigInvalidError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigInvalidError(f"{str(path)!r} is not XML: {error}") from None
    found = {}
    for entry in root.iter("property"):
        name, value = entry.findtext("name"), entry.findtext("value")
        if name and value is not None:
            found[name.strip()] = value
    return found
