"""The token and the signed URLs of the storage are shown nowhere: whoever quotes them."""

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awaited import by_each
from faults.machine import need_module
from servers import hf_server
from servers.hf_server import TOKEN, Hub, refusal
from servers.scripted import Answer, Asked, reply

import rangeio
from rangeio.cli import main

need_module("urllib3")

DATA = bytes(range(256)) * 100
SIGNATURE = "S1gned0S3cret"
HEADER = "H3aderS3cret"
SECRETS = (TOKEN, SIGNATURE, HEADER)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with hf_server.hub() as made:
        yield made


def secrets_in(*things: object) -> list[str]:
    """Which secrets a user could see in them, in any way that shows an object."""
    texts = []
    for thing in things:
        texts += [str(thing), repr(thing)]
        if isinstance(thing, BaseException):
            texts += traceback.format_exception(thing)
            texts += [repr(thing.args), repr(thing.__dict__), pickle.dumps(thing).decode("latin-1")]
            texts += secrets_in(*filter(None, [thing.__cause__, thing.__context__]))
    own = [line for text in texts for line in text.splitlines() if not line.startswith("    ")]
    return [secret for secret in SECRETS if any(secret.lower() in line.lower() for line in own)]


def quoted(asked: Asked) -> str:
    return " ".join([*asked.lines, f"Bearer {TOKEN}"])


QUOTING: dict[str, Callable[[Asked], Answer]] = {
    "a refusal": lambda asked: refusal(403, "GatedRepo", quoted(asked)),
    "a code": lambda asked: refusal(404, f"X{TOKEN}", "no"),
    "a wrong token": lambda asked: refusal(401, "", f"User Access Token {TOKEN} is expired"),
    "its reason": lambda asked: Answer(f"HTTP/1.1 403 {quoted(asked)}\r\nContent-Length: 0\r\n\r\n".encode()),
    "no head": lambda asked: Answer(f"{asked.target} {quoted(asked)}\r\n\r\n".encode(), "close"),
    "a coding": lambda asked: reply(206, DATA, Content_Encoding=asked.target, X_Repo_Commit="a" * 40),
    "a request id": lambda asked: reply(500, b"", X_Request_Id=f"id-{TOKEN} {asked.target}"),
    "a redirect": lambda asked: reply(302, Location=f"https:///{TOKEN}?{asked.target}"),
}


@pytest.mark.parametrize("where", ["hub", "storage"])
@pytest.mark.parametrize("how", QUOTING)
@pytest.mark.parametrize("way", ["sync", "asyncio"])
def test_what_is_quoted(hub: Hub, where: str, how: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    uri = hub.put("a", DATA)
    if where == "hub":
        hub.before = QUOTING[how]
    else:
        hub.in_storage = QUOTING[how]
    options: Any = {
        "retry": rangeio.Retry(attempts=2, backoff_s=0.001),
        "headers": {"X-Key": HEADER},
        "timeout": 10,
    }

    def check(open_reader: Any) -> Any:
        reader = open_reader(uri, bearer_token=TOKEN, **hub.options, **options)
        for call in (lambda: reader.read_at(0, 10), lambda: reader.read_ranges([(0, 5), (20_000, 20_005)])):
            with pytest.raises(rangeio.Error) as caught:
                call()
            assert not secrets_in(caught.value, caplog.text, reader, reader.path)
        return reader

    assert [*by_each(way, check)]


def test_what_can_be_seen_of_a_reader(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = hub.put("a", DATA)
    options: Any = {"bearer_token": TOKEN, "headers": {"X-Key": HEADER}, **hub.options}
    operator = rangeio.Operator("hf", **options)
    with rangeio.open(uri, **options) as reader:
        reader.read_at(0, 10)
        plan = reader.plan([(0, 5), (7, 9)])
        seen = (reader, reader.path, reader.stat(), reader.capability, plan, reader.stats, operator)
        pickles = [pickle.dumps(thing).decode("latin-1") for thing in (reader, operator, reader.read_at)]
    assert not secrets_in(*seen, *pickles)
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repo().private = True
    with pickle.loads(pickles[0].encode("latin-1")) as again:
        assert again.read_at(5, 5) == DATA[5:10]


def test_a_login_of_the_endpoint(hub: Hub) -> None:
    """It stays with this process."""
    url = hub.site.url.replace("://", f"://me:{TOKEN}@")
    hub.before = lambda asked: reply(500)
    operator = rangeio.Operator("hf", endpoint_url=url, retry=1)
    with operator.open("owner/name/a") as reader, pytest.raises(rangeio.ServerError) as caught:
        reader.read_at(0, 1)
    assert hub.site.asked[0].fields["authorization"].startswith("Basic ")
    with pytest.raises(rangeio.ServerError):
        [*rangeio.Operator("hf", repo="owner/name", endpoint_url=url, retry=1).list()]
    assert hub.site.asked[-1].fields["authorization"].startswith("Basic ")
    assert not secrets_in(
        caught.value, operator, reader, *operator.diagnosis(), pickle.dumps(operator).decode("latin-1")
    )


def test_the_command_line(hub: Hub, capfd: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    (tmp_path / "token").write_text(TOKEN)
    words = [
        "-o",
        f"bearer_token=@{tmp_path / 'token'}",
        "-o",
        f"endpoint_url={hub.site.url}",
        "-o",
        "retry=1",
    ]
    hub.before = QUOTING["a refusal"]
    for command in (["cat"], ["stat"], ["ls"]):
        assert main([*command, "hf://owner/name/a", *words]) == 1
    said = capfd.readouterr()
    assert said.err.count("\n") == 3
    assert not secrets_in(said.out, said.err)
