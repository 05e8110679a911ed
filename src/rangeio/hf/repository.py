"""The name of a repository and the addresses of its files. Source: huggingface_hub, "hf:// URIs"."""

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.http.urls import quoted

DEFAULT_REVISION = "main"
_KINDS = ("models", "datasets", "spaces")
_OTHER_KINDS = ("buckets", "kernels")
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]+", re.ASCII)
# These revisions contain a slash, which does not begin the path.
_SPECIAL = re.compile(r"refs/(?:pr/\d+|convert/[\w.-]+)(?=/|$)", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""The name of a commit, which always means the same files."""


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository at one revision. kind: ``models``, ``datasets`` or ``spaces``. name: ``owner/name``. revision: a
    branch, tag or commit; None for ``main``.
    """

    kind: str
    name: str
    revision: str | None = None

    @property
    def shown(self) -> str:
        """As in a URI, without the scheme."""
        kind = "" if self.kind == "models" else f"{self.kind}/"
        revision = self.revision
        if revision is None:
            return kind + self.name
        if not _SPECIAL.fullmatch(revision):
            revision = revision.replace("%", "%25").replace("/", "%2F")
        return f"{kind}{self.name}@{revision}"

    def at(self, revision: str | None) -> "Repository":
        """The same at another revision. ConfigInvalidError if it has one already that is different."""
        if revision is None or revision == self.revision:
            return self
        if self.revision is not None:
            raise ConfigInvalidError(
                f"version={revision!r} contradicts the revision {self.revision!r} of the repository"
            )
        if not revision:
            raise ConfigInvalidError("the revision is empty")
        return replace(self, revision=revision)

    def file(self, path: str, commit: str | None = None) -> str:
        """The path of the URL of a file. commit: in place of the revision. ConfigInvalidError if no file can have this
        path.
        """
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise ConfigInvalidError(
                f"{path!r} is not the path of a file in a repository: a part of it is empty, '.' or '..'",
                path=path,
            )
        kind = "" if self.kind == "models" else f"/{self.kind}"
        return f"{kind}/{self.name}/resolve/{self._quoted(commit)}/{quoted(path, '/~')}"

    def tree(self, folder: str) -> str:
        """The path of the URL of the listing of a folder; empty for the whole repository."""
        below = f"/{quoted(folder, '~')}" if folder else ""
        return f"/api/{self.kind}/{self.name}/tree/{self._quoted(None)}{below}"

    def _quoted(self, commit: str | None) -> str:
        return quote(commit or self.revision or DEFAULT_REVISION, safe="-_.~")


def split(text: str) -> tuple[Repository, str]:
    """The repository and the path in it: ``[datasets/|spaces/]owner/name[@revision][/path]``. The revision is
    percent-decoded, the path is not.

    >>> split("datasets/owner/name@refs%2Fpr%2F1/a b")
    (Repository(kind='datasets', name='owner/name', revision='refs/pr/1'), 'a b')
    """
    kind, _, rest = text.partition("/")
    if kind in _OTHER_KINDS:
        raise UnsupportedError(
            f"{kind} of the hub are not supported, only models, datasets and spaces", path=text
        )
    if kind not in _KINDS:
        kind, rest = "models", text
    owner, _, rest = rest.partition("/")
    name, mark, after = _cut(rest)
    if not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        raise ConfigInvalidError(
            "a repository is named [datasets/|spaces/]owner/name[@revision], and its files follow after a slash",
            path=text,
        )
    if mark != "@":
        return Repository(kind, f"{owner}/{name}"), after
    special = _SPECIAL.match(after)
    revision = special[0] if special else after.partition("/")[0]
    if not revision:
        raise ConfigInvalidError("the revision after '@' is empty", path=text)
    return Repository(kind, f"{owner}/{name}", unquote(revision)), after[len(revision) + 1 :]


def _cut(text: str) -> tuple[str, str, str]:
    """Split at the first ``@`` or ``/``."""
    found = re.search("[@/]", text)
    return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])
