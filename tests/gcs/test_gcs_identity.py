"""Who asks: tokens, keys, and where they come from; who of the servers gets them, and who never sees them."""

import copy
import json
import logging
import pickle
import threading
import time
import traceback
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, at_once, run_on
from faults.child import Lab, code
from faults.machine import need_module
from servers.gcs_keys import service_account
from servers.gcs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, TOKEN, GcsServer
from servers.scripted import Answer, Asked, Everybody, Scripted, everybody, reply, scripted

import rangeio
from rangeio.gcs.settings import found_credentials

need_module("google.auth")

DATA = bytes(range(256)) * 40
REFRESH_TOKEN, CLIENT_SECRET = "1//a-refresh-token-that-nobody-may-see", "GOCSPX-nobody-may-see-this"
USER = {
    "type": "authorized_user",
    "client_id": "id.apps.googleusercontent.com",
    "client_secret": CLIENT_SECRET,
    "refresh_token": REFRESH_TOKEN,
    "quota_project_id": "not-to-be-billed",
}


@pytest.fixture(autouse=True)
def key(store: GcsServer) -> None:
    store.put("key", DATA)


def read(server: Scripted, **options: Any) -> None:
    with rangeio.open("gs://bucket/key", endpoint_url=server.url, **options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]


# --- a token, or a callable ----------------------------------------------------------------------------------


class Source:
    """Gives tokens T1, T2, ... to whoever calls."""

    def __init__(self, **more: Any) -> None:
        self.calls, self.more = 0, more

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return {"bearer_token": f"T{self.calls}", **self.more}


def test_a_callable(store: GcsServer, server: Scripted) -> None:
    store.accounts.tokens.add("T1")
    source = Source(expires_at=datetime.now(timezone.utc) + timedelta(hours=1))
    operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, credentials=source)
    assert source.calls == 0
    for _ in range(3):
        assert operator.open("key").read_at(5, 10) == DATA[5:15]
    assert source.calls == 1


def test_a_token_that_expires_is_renewed_before(store: GcsServer, server: Scripted) -> None:
    store.accounts.tokens |= {"T1", "T2"}
    source = Source(expires_at=time.time() - 5)
    operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, credentials=source)
    reader = operator.open("key")
    reader.read_at(0, 1)
    begun = time.time()
    while source.calls < 2:
        reader.read_at(0, 1)
        assert time.time() < begun + 10
    assert {asked.fields["authorization"] for asked in server.asked} == {"Bearer T1", "Bearer T2"}


@pytest.mark.parametrize("loop", ["sync", *LOOPS])
def test_a_refused_token_is_renewed_once(store: GcsServer, server: Scripted, loop: str) -> None:
    store.accounts.tokens.add("T2")
    source = Source()
    if loop == "sync":
        read(server, credentials=source)
    else:
        need_module(loop)

        async def main() -> None:
            async with rangeio.open_async(
                "gs://bucket/key", endpoint_url=server.url, credentials=source
            ) as reader:
                assert await reader.read_at(5, 10) == DATA[5:15]

        run_on(loop, main)
    assert source.calls == 2


@pytest.mark.parametrize("loop", ["sync", *LOOPS])
def test_a_token_that_is_withdrawn(store: GcsServer, server: Scripted, loop: str) -> None:
    """Between two reads, where the core makes the requests."""
    source = Source()
    options: Any = {"endpoint_url": server.url, "credentials": source}

    def withdraw(number: int) -> int:
        store.accounts.tokens = {f"T{1 + number // 3}"}
        return number

    if loop == "sync":
        with rangeio.open("gs://bucket/key", **options) as reader:
            assert [reader.read_at(withdraw(at), 5) for at in range(9)] == [
                DATA[at : at + 5] for at in range(9)
            ]
    else:
        need_module(loop)

        async def main() -> None:
            async with rangeio.open_async("gs://bucket/key", **options) as reader:
                for at in range(9):
                    assert await reader.read_at(withdraw(at), 5) == DATA[at : at + 5]

        run_on(loop, main)
    assert source.calls == 3


@pytest.mark.parametrize("way", ["threads", *LOOPS])
def test_a_token_that_is_withdrawn_under_many_reads(store: GcsServer, server: Scripted, way: str) -> None:
    """All of them are refused, and one asks for another token."""
    count, source = 8, Source()
    together = threading.Barrier(count)
    store.accounts.tokens = {"T1"}

    def fault(asked: Asked) -> None:
        if asked.fields["authorization"] == "Bearer T1":
            together.wait(10)

    def withdraw() -> None:
        store.accounts.tokens, store.fault = {"T2"}, fault

    options: Any = {"endpoint_url": server.url, "credentials": source}
    if way == "threads":
        with rangeio.open("gs://bucket/key", **options) as reader, ThreadPoolExecutor(count) as pool:
            for _ in range(2):
                found = [*pool.map(lambda at: reader.read_at(at, 5), range(count))]
                assert found == [DATA[at : at + 5] for at in range(count)]
                withdraw()
    else:
        need_module(way)

        async def main() -> None:
            async with rangeio.open_async("gs://bucket/key", **options) as reader:

                async def read(at: int) -> None:
                    assert await reader.read_at(at, 5) == DATA[at : at + 5]

                for _ in range(2):
                    await at_once(way, [partial(read, at) for at in range(count)])
                    withdraw()

        run_on(way, main)
    assert source.calls == 2


def test_refused_for_good(server: Scripted) -> None:
    source = Source()
    with pytest.raises(rangeio.UnauthenticatedError, match="AuthenticationRequired"):
        read(server, credentials=source)
    assert source.calls == 2


def test_denied_is_not_a_matter_of_tokens(store: GcsServer, server: Scripted) -> None:
    store.fault = lambda asked: reply(403, b"<Error><Code>AccessDenied</Code></Error>")
    source = Source()
    with pytest.raises(rangeio.PermissionDeniedError):
        read(server, credentials=source)
    assert source.calls == len(server.asked) == 1


def test_waiting_reads_share_a_token(store: GcsServer, server: Scripted) -> None:
    store.accounts.tokens.add("T1")
    source = Source()
    operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, credentials=source)
    threads = [threading.Thread(target=operator.open("key").read_at, args=(0, 5)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.calls == 1


@pytest.mark.parametrize(
    "given",
    [None, "T1", {}, {"bearer_token": None}, {"bearer_token": "a b"}, {"bearer_token": "a\nb"}, {"bearer_token": "ü"},
     {"bearer_token": "T1", "expires_in": 5}, {"bearer_token": "T1", "expires_at": "soon"},
     {"bearer_token": "T1", "expires_at": datetime(2030, 1, 1)}],
    ids=str,
)  # fmt: skip
def test_what_a_callable_may_return(server: Scripted, given: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        read(server, credentials=lambda: given)
    assert "T1" not in str(caught.value)
    assert not server.asked


# --- combinations --------------------------------------------------------------------------------------------

ONE_OF: dict[str, dict[str, Any]] = {
    "service_account": {"service_account": service_account()},
    "bearer_token": {"bearer_token": TOKEN},
    "credentials": {"credentials": Source()},
    "keys": {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY},
    "anonymous": {"anonymous": True},
}


@pytest.mark.parametrize("first", ONE_OF)
@pytest.mark.parametrize("second", ONE_OF)
def test_one_kind_of_credentials(first: str, second: str) -> None:
    if first == second:
        rangeio.Operator("gs", **ONE_OF[first])
    else:
        with pytest.raises(rangeio.ConfigInvalidError, match="only one of"):
            rangeio.Operator("gs", **ONE_OF[first], **ONE_OF[second])


BAD: list[dict[str, Any]] = [
    {"access_key_id": "A"},
    {"secret_access_key": "B"},
    {"access_key_id": "A\n", "secret_access_key": "B"},
    {"bearer_token": ""},
    {"bearer_token": "a b"},
    {"bearer_token": b"a"},
    {"credentials": 5},
    {"service_account": 5},
    {"service_account": json.dumps(service_account())},
    {"user_project": "a\nb", "anonymous": True},
    {"bearer_token": TOKEN, "headers": {"Authorization": "Bearer other"}},
    {"anonymous": True, "user_project": "a", "headers": {"X-Goog-User-Project": "b"}},
    {"endpoint_url": "https://me:secret@example.org"},
    {"endpoint_url": "https://example.org?a=b"},
    {"endpoint_url": "ftp://example.org"},
    {"serviceaccount": "x"},
]


@pytest.mark.parametrize("options", BAD, ids=str)
def test_options_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.Operator("gs", bucket="bucket", **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret@" not in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize("who", [*ONE_OF, "machine"])
@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://storage.example.org", False),
        ("http://10.0.0.1:4443", False),
        ("http://localhost.example.org", False),
        ("http://localhost:4443", True),
        ("http://127.0.0.7:4443", True),
        ("http://[::1]:4443", True),
        ("https://storage.example.org", True),
    ],
)
def test_tokens_over_plain_http(who: str, url: str, private: bool) -> None:
    """Only to this machine. A signature of a request is no token."""
    options = ONE_OF.get(who, {})
    if private or who in ("keys", "anonymous"):
        rangeio.Operator("gs", endpoint_url=url, **options)
    else:
        with pytest.raises(rangeio.ConfigInvalidError, match="plain http"):
            rangeio.Operator("gs", endpoint_url=url, **options)


def test_tokens_through_a_proxy_of_others() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="plain http"):
        rangeio.Operator(
            "gs",
            endpoint_url="http://127.0.0.1:4443",
            proxy="http://proxy.example.org:3128",
            bearer_token=TOKEN,
        )


def test_a_token_stays_with_its_host(store: GcsServer, server: Scripted) -> None:
    with scripted(lambda asked: reply(404)) as other:
        store.fault = lambda asked: reply(307, Location=f"{other.url}/bucket/key")
        with pytest.raises(rangeio.NotFoundError):
            read(server, bearer_token=TOKEN)
        assert not {"authorization", "x-goog-user-project"} & set(other.asked[0].fields)


# --- accounts of Google --------------------------------------------------------------------------------------


def test_a_service_account_signs_its_own_tokens(server: Scripted) -> None:
    """No server is asked; the scope is for reading."""
    read(server, service_account=service_account())
    assert len(server.asked) == 1
    claims = server.asked[0].fields["authorization"].split(".")[1]
    said = json.loads(urlsafe_b64decode(claims + "=="))
    assert said["scope"] == "https://www.googleapis.com/auth/devstorage.read_only"


@pytest.mark.parametrize("variable", ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT",
                                      "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY", "CLOUDSDK_CONFIG",
                                      "HOME", "option", "option as a Path"])  # fmt: skip
def test_where_credentials_are_found(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    text = json.dumps(service_account())
    path = tmp_path / "application_default_credentials.json"
    if variable == "HOME":
        path = tmp_path / ".config" / "gcloud" / path.name
        path.parent.mkdir(parents=True)
    path.write_text(text)
    value = {"GOOGLE_SERVICE_ACCOUNT_KEY": text, "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    if variable.startswith("option"):
        read(server, service_account=path if "Path" in variable else str(path))
    else:
        monkeypatch.setenv(
            variable, f" {value.get(variable, str(path))}\n" if variable != "HOME" else str(tmp_path)
        )
        read(server)


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one counts where those before it are missing, and all of them less than an option."""

    def named(name: str) -> str:
        (tmp_path / name).mkdir()
        path = tmp_path / name / "application_default_credentials.json"
        path.write_text(json.dumps(service_account(project_id=name)))
        return str(path)

    environ = {
        "GOOGLE_APPLICATION_CREDENTIALS": named("application"),
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(service_account(project_id="key")),
        "GOOGLE_SERVICE_ACCOUNT": named("account"),
        "GOOGLE_SERVICE_ACCOUNT_PATH": named("path"),
        "CLOUDSDK_CONFIG": str(Path(named("gcloud")).parent),
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    operator = rangeio.Operator("gs", **ONE_OF["service_account"])
    assert dict(operator.diagnosis())["credentials"] == "service_account in service_account="
    found = []
    for name in list(environ):
        credentials = found_credentials(environ)
        assert credentials is not None
        found.append(credentials[0]["project_id"])
        del environ[name]
    assert found == ["application", "key", "account", "path", "gcloud"]


def test_a_replaced_file_is_read_again(store: GcsServer, server: Scripted, tmp_path: Path) -> None:
    """After the token was refused."""
    path = tmp_path / "key.json"
    path.write_text(json.dumps(service_account(client_email="gone@example.org")))
    asked: list[str] = []

    def fault(request: Asked) -> Answer | None:
        asked.append(request.fields["authorization"])
        path.write_text(json.dumps(service_account()))
        return None

    store.fault = fault
    read(server, service_account=path)
    assert len(set(asked)) == 2


def test_an_object_of_google_auth_without_a_scope(server: Scripted) -> None:
    """It is given one, as Google's own clients do."""
    module = need_module("google.oauth2.service_account")
    held = module.Credentials.from_service_account_info(service_account()).with_always_use_jwt_access(True)
    read(server, credentials=held)


def test_an_object_of_google_auth(server: Scripted) -> None:
    module = need_module("google.oauth2.service_account")
    held = module.Credentials.from_service_account_info(
        service_account(), scopes=["https://www.googleapis.com/auth/cloud-platform"]
    ).with_always_use_jwt_access(True)
    read(server, credentials=held)
    token = held.token
    assert server.asked[0].fields["authorization"] == f"Bearer {token}"
    read(server, credentials=held)
    assert held.token == token, "it was good, and nobody refused it"


NO_CREDENTIALS: list[tuple[Any, str]] = [
    ("/nowhere/key.json", "cannot be read"),
    ({}, "a type that is not supported"),
    ({"type": "service_account"}, "incomplete"),
    (service_account(private_key="not a key"), "incomplete"),
    ({"type": "authorized_user", "refresh_token": REFRESH_TOKEN}, "incomplete"),
    ({"type": "external_account"}, "incomplete"),
    ({"type": "external_account_authorized_user"}, "incomplete"),
    ({"type": "impersonated_service_account"}, "incomplete"),
    ({"type": "gdch_service_account"}, "a type that is not supported"),
]


@pytest.mark.parametrize(("given", "said"), NO_CREDENTIALS)
def test_credentials_that_are_none(server: Scripted, given: Any, said: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=said) as caught:
        read(server, service_account=given)
    assert REFRESH_TOKEN not in "".join(traceback.format_exception(caught.value))
    assert not server.asked


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"5", b"\xff\xfe", b'{"type": "service_account", "private_key": "secret"']
)
def test_files_that_are_none(server: Scripted, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(text)
    with pytest.raises(rangeio.ConfigInvalidError, match=r"key\.json") as caught:
        read(server, service_account=path)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_path_that_is_the_content(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often done, and not to be shown."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", json.dumps(service_account()))
    with pytest.raises(rangeio.ConfigInvalidError, match="GOOGLE_SERVICE_ACCOUNT_KEY") as caught:
        read(server)
    assert "PRIVATE" not in "".join(traceback.format_exception(caught.value))


def test_no_credentials_at_all(server: Scripted) -> None:
    with pytest.raises(rangeio.UnauthenticatedError, match="anonymous=True for public objects"):
        read(server)
    assert not server.asked


def test_without_google_auth(lab: Lab, server: Scripted) -> None:
    """It is missing only to those who need it: a token can be sent without."""
    said = lab.run(
        code(f"""
        import sys
        for name in ("google.auth.transport.requests", "google.oauth2.service_account"):
            sys.modules[name] = None
        import rangeio
        reader = rangeio.open("gs://bucket/key", endpoint_url={server.url!r}, bearer_token={TOKEN!r})
        assert reader.read_at(5, 10) == bytes(range(5, 15))
        try:
            rangeio.open("gs://bucket/key", endpoint_url={server.url!r}, service_account={service_account()!r}).stat()
        except rangeio.UnsupportedError as error:
            say(told=str(error))
    """)
    ).facts()["told"]
    assert "pip install 'rangeio[gcs]'" in said


WHEREABOUTS: list[tuple[dict[str, Any], str]] = [
    (ONE_OF["service_account"], "service_account in service_account="),
    (ONE_OF["bearer_token"], "bearer_token="),
    (ONE_OF["credentials"], "credentials="),
    (ONE_OF["keys"], "access_key_id= and secret_access_key="),
    (ONE_OF["anonymous"], "anonymous=True"),
]


@pytest.mark.parametrize(("options", "said"), WHEREABOUTS)
def test_diagnosis_of_options(options: dict[str, Any], said: str) -> None:
    found = dict(rangeio.Operator("gs", **options).diagnosis())
    assert found == {"endpoint": "https://storage.googleapis.com", "credentials": said}


def test_diagnosis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Scripted) -> None:
    """Where credentials were found, and nothing of them."""
    operator = rangeio.Operator("gs", endpoint_url=server.url)
    with pytest.raises(rangeio.UnauthenticatedError, match="no Google credentials"):
        [*operator.diagnosis()]
    path = tmp_path / "key.json"
    path.write_text(json.dumps(USER))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert dict(operator.diagnosis()) == {
        "endpoint": server.url,
        "credentials": f"authorized_user in {str(path)!r}",
    }
    path.write_text('{"type": "authorized_user", "refresh_token": "secret"}')
    with pytest.raises(rangeio.ConfigInvalidError, match="incomplete") as caught:
        [*operator.diagnosis()]
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    assert dict(rangeio.Operator("gs").diagnosis())["credentials"] == "none: STORAGE_EMULATOR_HOST is set"
    assert not server.asked


# --- Google's own hosts --------------------------------------------------------------------------------------

HOSTS = [
    "storage.googleapis.com",
    "oauth2.googleapis.com",
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
]
Google = tuple[Everybody, dict[str, str]]


@pytest.fixture
def google(store: GcsServer, tmp_path: Path) -> Iterator[Google]:
    """All of them, behind a proxy, with certificates of an authority of its own."""

    def script(asked: Asked) -> Answer:
        host = asked.fields["host"]
        if host == "storage.googleapis.com":
            return store.answer(asked)
        token: dict[str, Any] = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        if host == "iamcredentials.googleapis.com":
            until = datetime.now(timezone.utc) + timedelta(hours=1)
            token = {"accessToken": TOKEN, "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
            if asked.target.endswith(":signBlob"):
                token = {"keyId": "1", "signedBlob": signed_blob(asked.body)}
        return reply(200, json.dumps(token).encode(), Content_Type="application/json")

    with everybody(script, HOSTS, tmp_path) as found:
        yield found


def signed_blob(body: bytes) -> str:
    """What Google's IAM answers: a signature by the key of the account."""
    from base64 import b64decode, b64encode

    signer = need_module("google.auth.crypt").RSASigner.from_service_account_info(service_account())
    return b64encode(signer.sign(b64decode(json.loads(body)["payload"]))).decode()


def hosts(server: Everybody) -> list[str]:
    return [asked.fields["host"].partition(".")[0] for asked in server.asked]


def external(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "subject").write_text("a-subject-token")
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }


def impersonated() -> dict[str, Any]:
    account = "reader@project.iam.gserviceaccount.com"
    return {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        + f"{account}:generateAccessToken",
        "source_credentials": USER,
    }


WORKFORCE = {
    **USER,
    "type": "external_account_authorized_user",
    "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q",
    "token_url": "https://sts.googleapis.com/v1/oauthtoken",
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("service_account", ["storage"]),
        ("service_account of another token server", ["sts", "storage"]),
        ("authorized_user", ["oauth2", "storage"]),
        ("authorized_user of another token server", ["oauth2", "storage"]),
        ("external_account", ["sts", "storage"]),
        ("external_account_authorized_user", ["sts", "storage"]),
        ("impersonated_service_account", ["oauth2", "iamcredentials", "storage"]),
    ],
)
def test_whom_each_kind_asks(google: Google, tmp_path: Path, kind: str, expected: list[str]) -> None:
    """By google-auth as it is, and nobody else: not who owns the project, not whom to bill. For a user it asks Google,
    whatever the file says.
    """
    server, options = google
    elsewhere = "https://sts.googleapis.com/token"
    given: Any = {
        "service_account": service_account(),
        "service_account of another token server": service_account(token_uri=elsewhere),
        "authorized_user": USER,
        "authorized_user of another token server": {**USER, "token_uri": elsewhere},
        "external_account": external(tmp_path),
        "external_account_authorized_user": WORKFORCE,
        "impersonated_service_account": impersonated(),
    }[kind]
    with rangeio.open("gs://bucket/key", service_account=given, **options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_at(0, 10) == DATA[:10]
    assert hosts(server) == [*expected, "storage"]
    assert "x-goog-user-project" not in server.asked[-1].fields


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_does_not_wait_for_google(google: Google, loop: str) -> None:
    need_module(loop)
    server, options = google

    async def main() -> None:
        async with rangeio.open_async("gs://bucket/key", service_account=USER, **options) as reader:
            assert await reader.read_at(5, 10) == DATA[5:15]

    run_on(loop, main)
    assert hosts(server) == ["oauth2", "storage"]


REFUSED = b'{"error": "invalid_grant", "error_description": "Token has been revoked."}'


def test_google_refuses_a_token(google: Google, caplog: pytest.LogCaptureFixture) -> None:
    server, options = google
    answer = server.script
    server.script = lambda asked: (
        answer(asked)
        if asked.fields["host"] != HOSTS[1]
        else reply(400, REFUSED, Content_Type="application/json")
    )
    caplog.set_level(logging.DEBUG)
    with (
        rangeio.open("gs://bucket/key", service_account=USER, **options) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="invalid_grant: Token has been revoked") as caught,
    ):
        reader.read_at(0, 1)
    assert hosts(server) == ["oauth2"]
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert REFRESH_TOKEN not in shown
    assert CLIENT_SECRET not in shown


def test_google_cannot_be_reached() -> None:
    proxy = "http://some-user:a-password-of-the-proxy@127.0.0.1:1"
    with (
        rangeio.open("gs://bucket/key", service_account=USER, proxy=proxy) as reader,
        pytest.raises(rangeio.ConnectionFailedError, match="no token from Google") as caught,
    ):
        reader.read_at(0, 1)
    shown = "".join(traceback.format_exception(caught.value))
    assert "a-password-of-the-proxy" not in shown
    assert "some-user" not in shown


def test_a_certificate_of_nobody(google: Google) -> None:
    server, options = google
    del options["ca_file"]
    with (
        rangeio.open("gs://bucket/key", service_account=USER, **options) as reader,
        pytest.raises(rangeio.ConnectionFailedError, match="no token from Google"),
    ):
        reader.read_at(0, 1)
    assert not server.asked


def test_the_metadata_server(lab: Lab, store: GcsServer, server: Scripted) -> None:
    """In a process of its own: google-auth reads its address when it is imported."""

    def metadata(asked: Asked) -> Answer:
        if asked.fields.get("metadata-flavor") != "Google":
            return reply(403)
        fields = {"Metadata_Flavor": "Google", "Content_Type": "application/json"}
        if "/token" in asked.target:
            body: dict[str, Any] = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        else:
            body = {"email": "default@example.org", "scopes": [], "aliases": ["default"]}
        return reply(200, json.dumps(body).encode(), **fields)

    with scripted(metadata) as cloud:
        said = lab.run(
            code(f"""
                import rangeio
                reader = rangeio.open("gs://bucket/key", endpoint_url={server.url!r})
                say(read=bytes(reader.read_at(5, 10)).hex())
            """),
            GCE_METADATA_HOST=cloud.url.removeprefix("http://"),
        ).facts()
        assert bytes.fromhex(said["read"]) == DATA[5:15]
        (token,) = (asked for asked in cloud.asked if "/token" in asked.target)
        assert "devstorage.read_only" in token.target


# --- signed URLs ---------------------------------------------------------------------------------------------


def by_http(url: str) -> bytes:
    with rangeio.open(url) as reader:
        return bytes(reader.read_at(5, 10))


@pytest.mark.parametrize("who", ["service_account", "keys", "anonymous"])
@pytest.mark.parametrize("name", ["key", "a b/+%41ü?"])
def test_presign(store: GcsServer, server: Scripted, who: str, name: str) -> None:
    store.put(name, DATA)
    operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, **ONE_OF[who])
    url = operator.presign(name, 60)
    assert not server.asked
    if who == "anonymous":
        store.public.add("bucket")
    assert by_http(url) == DATA[5:15]
    assert "authorization" not in server.asked[0].fields
    if who != "anonymous":
        with pytest.raises(rangeio.PermissionDeniedError):
            by_http(url[:-2] + ("00" if url[-2:] != "00" else "11"))


@pytest.mark.parametrize("who", ["service_account", "keys"])
def test_presign_a_generation_that_the_reader_pays_for(store: GcsServer, server: Scripted, who: str) -> None:
    store.billed.add("bucket")
    old = store.generation("key")
    store.put("key", b"newer")
    operator = rangeio.Operator(
        "gs", bucket="bucket", endpoint_url=server.url, user_project="mine", **ONE_OF[who]
    )
    assert by_http(operator.presign("key", 60, version=old)) == DATA[5:15]


@pytest.mark.parametrize("expires", [0, -1, 604_801, timedelta(days=8)])
def test_presign_for_how_long(server: Scripted, expires: Any) -> None:
    operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, **ONE_OF["keys"])
    with pytest.raises(rangeio.ConfigInvalidError, match="expires"):
        operator.presign("key", expires)


@pytest.mark.parametrize("who", ["bearer_token", "credentials"])
def test_presign_without_a_key(server: Scripted, who: str) -> None:
    operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, **ONE_OF[who])
    with pytest.raises(rangeio.UnsupportedError, match="no key to sign"):
        operator.presign("key", 60)


def test_presign_what_needs_a_key_of_its_own(server: Scripted) -> None:
    headers = {"x-goog-encryption-key": "a-key-of-the-owner"}
    operator = rangeio.Operator(
        "gs", bucket="bucket", endpoint_url=server.url, headers=headers, **ONE_OF["keys"]
    )
    with pytest.raises(rangeio.UnsupportedError, match="x-goog-encryption-key"):
        operator.presign("key", 60)


def test_presign_by_google(google: Google, store: GcsServer) -> None:
    """A user's account has no key; Google signs for a service account that the user may act as."""
    server, options = google
    operator = rangeio.Operator("gs", bucket="bucket", service_account=USER, **options)
    with pytest.raises(rangeio.UnsupportedError, match="no key to sign"):
        operator.presign("key", 60)
    signer = rangeio.Operator(
        "gs", bucket="bucket", service_account=USER, sign_as=service_account()["client_email"], **options
    )
    url = signer.presign("key", 60)
    assert hosts(server) == ["oauth2", "iamcredentials"]
    with rangeio.open(url, **options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]


# --- nobody sees them ----------------------------------------------------------------------------------------

SECRETS = {
    "service_account": [service_account()["private_key"][40:80]],
    "bearer_token": [TOKEN],
    "credentials": ["T1-nobody-may-see"],
    "keys": [ACCESS_KEY_ID, SECRET_ACCESS_KEY],
    "google": [service_account()["private_key"][40:80]],
}


def echo(asked: Asked) -> Answer:
    """A server that quotes what it was sent, in all it says."""
    said = " ".join(asked.lines).replace("&", "").replace("<", "")
    return reply(400, f"<Error><Code>{said[:90]}</Code><Message>{said}</Message></Error>".encode())


@pytest.mark.parametrize("who", SECRETS)
def test_secrets_are_shown_nowhere(who: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    options = ONE_OF.get(who) or {
        "credentials": need_module("google.oauth2.service_account")
        .Credentials.from_service_account_info(
            service_account(), scopes=["https://www.googleapis.com/auth/devstorage.read_only"]
        )
        .with_always_use_jwt_access(True)
    }
    options = copy.copy(options)
    if who == "credentials":
        options["credentials"] = say_token
    with scripted(echo) as server:
        operator = rangeio.Operator("gs", bucket="bucket", endpoint_url=server.url, **options)
        reader = operator.open("key")
        shown = [repr(operator), str(operator), repr(reader), repr(reader.plan([(0, 5)]))]
        for call in (lambda: reader.read_at(0, 1), reader.stat, lambda: list(operator.list(""))):
            with pytest.raises(rangeio.Error) as caught:
                call()
            shown += traceback.format_exception(caught.value)
            shown += [repr(caught.value), repr(caught.value.context), repr(pickle.dumps(caught.value))]
        sent = [asked.fields["authorization"].split()[-1] for asked in server.asked]
        shown += [
            pickle.dumps(reader).decode("latin-1"),
            pickle.dumps(operator).decode("latin-1"),
            caplog.text,
        ]
        shown += [json.dumps(rangeio.stats())]
    secrets = [*SECRETS[who], *(text for text in sent if "Signature=" not in text)]
    secrets += [text.rpartition("Signature=")[2] for text in sent if "Signature=" in text]
    assert len(secrets) > len(SECRETS[who])
    for text in shown:
        for secret in secrets:
            assert secret not in text


def say_token() -> dict[str, Any]:
    """Importable, so that it can be pickled."""
    return {"bearer_token": "T1-nobody-may-see"}
