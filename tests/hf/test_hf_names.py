"""Names of repositories, the token of the machine, refusals and pages of listings: what needs no server."""

import json
from pathlib import Path

import pytest
from faults.machine import need_module

import rangeio
from rangeio.errors import UnexpectedError
from rangeio.hf import listing, token
from rangeio.hf.repository import Repository, split
from rangeio.hf.responses import explained

NAMES = [
    "owner/name/a b/c%20d",
    "owner/name@main/a",
    "owner/name@v1.0/deep/er/a",
    "owner/name@refs/pr/12/a/b",
    "owner/name@refs/pr/12",
    "owner/name@refs/convert/parquet/default/0000.parquet",
    "owner/name@refs%2Fpr%2F1/a",
    "owner/name@feature%2Fx%25y/a",
    "owner/name/file@1.txt",
    "owner/name",
    "models/owner/name/a",
    "datasets/owner/na-me_1.x/a",
    "spaces/owner/name@main/app.py",
]


@pytest.mark.parametrize("text", NAMES)
def test_names_are_those_of_huggingface_hub(text: str) -> None:
    theirs = need_module("huggingface_hub").parse_hf_uri(f"hf://{text}")
    repository, path = split(text)
    assert (repository.name, repository.revision, path) == (theirs.id, theirs.revision, theirs.path_in_repo)
    assert repository.kind == f"{theirs.type}s"
    assert split(f"{repository.shown}/x") == (repository, "x")


@pytest.mark.parametrize(
    "text", ["", "name", "owner/", "/name/a", "owner/name@/a", "a b/name/x", "owner/../x", "owner/a@"]
)
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        split(text)


@pytest.mark.parametrize("text", ["buckets/owner/name/a", "kernels/owner/name/a"])
def test_kinds_that_are_not_read(text: str) -> None:
    with pytest.raises(rangeio.UnsupportedError, match="only models, datasets and spaces"):
        split(text)


def test_addresses() -> None:
    repository = Repository("datasets", "owner/name", "refs/pr/1")
    assert repository.file("a b/ü") == "/datasets/owner/name/resolve/refs%2Fpr%2F1/a%20b/%C3%BC"
    assert repository.file("a", "c" * 40) == f"/datasets/owner/name/resolve/{'c' * 40}/a"
    assert repository.tree("") == "/api/datasets/owner/name/tree/refs%2Fpr%2F1"
    assert repository.tree("a/b") == "/api/datasets/owner/name/tree/refs%2Fpr%2F1/a%2Fb"
    assert Repository("models", "owner/name").file("x?y#z") == "/owner/name/resolve/main/x%3Fy%23z"


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "..", "a/../b", "./a"])
def test_paths_that_no_file_has(path: str) -> None:
    """A server may take them for another path."""
    with pytest.raises(rangeio.ConfigInvalidError, match="part of it is empty"):
        Repository("models", "owner/name").file(path)


def test_two_revisions() -> None:
    repository = Repository("models", "owner/name", "main")
    assert repository.at(None) is repository.at("main") is repository
    assert Repository("models", "owner/name").at("v1").revision == "v1"
    for revision in ("v1", ""):
        with pytest.raises(rangeio.ConfigInvalidError, match=r"contradicts"):
            repository.at(revision)
    with pytest.raises(rangeio.ConfigInvalidError, match="empty"):
        Repository("models", "owner/name").at("")


# --- the token -----------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an environment without a token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_where_the_token_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of huggingface_hub: its two variables, then the file."""
    assert token.found() is None
    places = [
        ("", home / ".cache/huggingface/token"),
        ("XDG_CACHE_HOME", home / "cache/huggingface/token"),
        ("HF_HOME", home / "hf/token"),
        ("HF_TOKEN_PATH", home / "file"),
    ]
    for number, (name, path) in enumerate(places):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"\n of-{number} \r\n")
        if name:
            monkeypatch.setenv(
                name, str(path if name == "HF_TOKEN_PATH" else path.parent).removesuffix("/huggingface")
            )
        assert token.found() == (f"of-{number}", str(path))
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, f"of-{name}\n")
        assert token.found() == (f"of-{name}", name)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert token.found() is None


def test_empty_tokens_are_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " \n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(home / "file"))
    (home / "file").write_text("\n")
    assert token.found() is None


def test_tokens_that_cannot_be_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_S3cret\nEvil: 1")
    with pytest.raises(rangeio.ConfigInvalidError, match="HF_TOKEN contains a line break") as caught:
        token.found()
    assert "S3cret" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", str(home))
    with pytest.raises(rangeio.UnauthenticatedError, match="cannot be read"):
        token.found()


# --- refusals ------------------------------------------------------------------------------------------------


def general(status: int) -> rangeio.Error:
    kind = {401: rangeio.UnauthenticatedError, 403: rangeio.PermissionDeniedError}.get(
        status, UnexpectedError
    )
    return kind(f"HTTP {status}: the meaning", http_status=status, request_id="id")


@pytest.mark.parametrize(
    ("status", "code", "sent", "kind", "said"),
    [
        (404, "EntryNotFound", True, rangeio.NotFoundError, "file does not exist at this revision"),
        (404, "RevisionNotFound", True, rangeio.NotFoundError, "revision does not exist"),
        (401, "RepoNotFound", False, rangeio.NotFoundError, "no token was sent"),
        (404, "RepoNotFound", True, rangeio.NotFoundError, "the token may not read it"),
        (403, "GatedRepo", True, rangeio.PermissionDeniedError, "request access"),
        (401, "GatedRepo", False, rangeio.PermissionDeniedError, "HF_TOKEN"),
        (403, "DisabledRepo", True, rangeio.PermissionDeniedError, "disabled"),
        (401, "", True, rangeio.UnauthenticatedError, "not accepted"),
        (401, "", False, rangeio.UnauthenticatedError, "a token is required"),
        (403, "", True, rangeio.PermissionDeniedError, "the meaning"),
        (418, "New", True, UnexpectedError, "HTTP 418: New: the meaning"),
    ],
)
def test_refusals(status: int, code: str, sent: bool, kind: type[rangeio.Error], said: str) -> None:
    fields = {"x-error-code": code, "x-error-message": "it quotes S3cret\x1b"}
    found = explained(fields, general(status), token=sent, secrets=["S3cret"])
    assert type(found) is kind
    assert said in str(found)
    assert "(the server: it quotes ***?)" in str(found)
    assert (found.http_status, found.request_id, found.context.get("code", "")) == (status, "id", code)
    assert "S3cret" not in f"{found!r} {found.context}"


# --- listings ------------------------------------------------------------------------------------------------


def test_entries() -> None:
    found = [
        {"type": "file", "path": "b", "oid": "aa", "size": 5},
        {"type": "directory", "path": "a", "oid": "bb", "size": 0},
        {"type": "submodule", "path": "s", "oid": "cc"},
        {
            "type": "file",
            "path": "c",
            "oid": "dd",
            "size": 9,
            "lfs": {"oid": "ee", "size": 9, "pointerSize": 3},
        },
    ]
    folder, small, large = listing.entries(json.dumps(found).encode())
    assert (folder.path, folder.is_prefix, folder.size) == ("a/", True, None)
    assert (small.path, small.size, small.etag, small.pin) == ("b", 5, '"aa"', '"aa":5')
    assert (large.path, large.size, large.etag, large.pin) == ("c", 9, '"ee"', '"ee":9')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b"<html>",
        b"[" * 100_000,
        b'[{"type": "file", "size": 1}]',
        b'[{"type": "file", "path": "", "size": 1}]',
        b'[{"type": "file", "path": "a"}]',
        b'[{"type": "file", "path": "a", "size": -1}]',
        b'[{"type": "file", "path": "a", "size": true}]',
        b'[{"type": "file", "path": "a", "size": 9223372036854775808}]',
    ],
)
def test_what_is_no_listing(body: bytes) -> None:
    with pytest.raises(UnexpectedError, match="listing"):
        listing.entries(body)


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ("", None),
        ('<https://hub/api/x?cursor=a%3D&limit=2>; rel="next"', "cursor=a%3D&limit=2"),
        ('<https://hub/xet?a>; rel="xet-auth", </api/x?cursor=b>;rel=next', "cursor=b"),
        ('<https://hub/api/x?cursor=c#top>; title="a, b"; rel="prev next"', "cursor=c"),
        ('<https://hub/api/x?cursor=d>; rel="nextish"', None),
    ],
)
def test_the_next_page(link: str, query: str | None) -> None:
    assert listing.next_query(link) == query


def test_a_next_page_without_a_query() -> None:
    """It would be the same page."""
    with pytest.raises(UnexpectedError, match="more pages"):
        listing.next_query('<https://hub/api/x>; rel="next"')
