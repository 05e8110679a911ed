"""Tokens and keys of Google accounts, by google-auth, which is imported when the first one is needed.

google.auth.default() is not used: it asks for the project of some accounts, which nobody needs here and closed networks
refuse, and warns about others.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rangeio.errors import (
    ConfigInvalidError,
    ConnectionFailedError,
    Error,
    ServerError,
    UnauthenticatedError,
    UnsupportedError,
)
from rangeio.gcs.settings import Named, credentials_file, found_credentials
from rangeio.gcs.signing import SigningKey, rsa_key
from rangeio.http.redaction import hidden
from rangeio.http.remote_object import Fresh
from rangeio.locks import begin_lock

READ_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_IAM_SCOPE = "https://www.googleapis.com/auth/iam"
# Of one request for a token. google-auth repeats those that are worth it.
_TIMEOUT_S = 30.0
_PING_S = 3.0
_MOST_OF_A_MESSAGE = 200
# What makes the credentials in a file secret; the rest may be shown.
_SECRET = ("private_key", "client_secret", "refresh_token")
_PRODUCT = Path("/sys/class/dmi/id/product_name")


@dataclass(frozen=True, slots=True)
class Transport:
    """How the servers that give tokens are reached: as for reads. None is what `requests` finds in the environment."""

    ca_file: str | None = None
    verify: bool = True
    proxy: str | None = field(default=None, repr=False)

    def secrets(self) -> tuple[str, ...]:
        """The login for the proxy."""
        parts = urlsplit(self.proxy or "")
        return tuple(filter(None, (parts.username, parts.password)))

    @contextmanager
    def session(self) -> Iterator[Callable[..., Any]]:
        """A function that makes requests, as google-auth wants it."""
        requests, transport = _import("requests"), _import("google.auth.transport.requests")
        with requests.Session() as session:
            session.verify = (self.ca_file or True) if self.verify else False
            if self.proxy is not None:
                session.trust_env = False
                # The metadata servers of clouds are reached by http, within the machine's own network.
                session.proxies = {"https": self.proxy} if self.proxy else {}
            yield partial(transport.Request(session), timeout=_TIMEOUT_S)


class Identity:
    """One account. given: the path or the content of a credentials file, or a Credentials object of google-auth; None
    for the account of this machine. Thread-safe. The repr shows nothing of it.
    """

    _lock: threading.RLock

    def __init__(self, given: Any, transport: Transport) -> None:
        self._given, self._transport = given, transport
        self._held: Any = None
        self._token = ""  # the last one given away
        self._secrets: tuple[str, ...] = ()
        begin_lock(self)

    def token(self) -> Fresh:
        """The header field with a token, and when it expires. Each call gets another token, except the first if the
        caller's object has one already. May block.
        """
        with self._lock, _told(self._secrets_of):
            if not is_of_google(self._given):
                self._held = None  # a file may have been replaced
            held = self._credentials()
            if not held.valid or held.token == self._token:
                with self._transport.session() as request:
                    held.refresh(request)
            if not isinstance(held.token, str) or not held.token:
                raise UnauthenticatedError("google-auth found no token")
            self._token = held.token
            expiry: datetime | None = held.expiry  # in UTC, without saying so
            seconds = float("inf") if expiry is None else expiry.replace(tzinfo=timezone.utc).timestamp()
            return {"Authorization": f"Bearer {held.token}"}, seconds

    def signing_key(self, sign_as: str | None) -> SigningKey | None:
        """The private key, if it has one; None otherwise. With `sign_as`, Google signs in the name of that service
        account, by a request for each signature.
        """
        with self._lock, _told(self._secrets_of):
            held = self._credentials()
            if sign_as is None and hasattr(held, "signer") and _has_key(held):
                return rsa_key(held.signer_email, _told_by(held.sign_bytes, self._secrets_of))
            if sign_as is None:
                return None
            asking = held if is_of_google(self._given) else _scoped(self._loaded(), _IAM_SCOPE)

        def sign(text: bytes) -> bytes:
            with self._transport.session() as request:
                signed: bytes = _import("google.auth.iam").Signer(request, asking, sign_as).sign(text)
                return signed

        return rsa_key(sign_as, _told_by(sign, self._secrets_of))

    def whereabouts(self) -> str:
        """The type of the credentials and where they were found. The error of those that cannot be used."""
        with self._lock, _told(self._secrets_of):
            self._held = None
            self._credentials()
            if is_of_google(self._given):
                return "credentials=, an object of google-auth"
            found = self._named()
            return "the metadata server" if found is None else f"{found[0].get('type')} in {found[1]}"

    def secrets(self) -> Iterator[str]:
        """Secrets that no message may show."""
        yield from self._secrets

    def _secrets_of(self) -> tuple[str, ...]:
        return (*self._secrets, *self._transport.secrets())

    def _credentials(self) -> Any:
        """The object of google-auth that gets tokens for reading."""
        if self._held is None:
            self._held = _scoped(self._given if is_of_google(self._given) else self._loaded(), READ_SCOPE)
        return self._held

    def _loaded(self) -> Any:
        found = self._named()
        if found is None:
            return _of_metadata_server(self._transport)
        info, place = found
        self._secrets = tuple(str(info[name]) for name in _SECRET if info.get(name))
        return _loaded(info, place)

    def _named(self) -> Named | None:
        if isinstance(self._given, Mapping):
            return self._given, "service_account="
        return found_credentials() if self._given is None else credentials_file(self._given)


def is_of_google(given: object) -> bool:
    """Whether it is a Credentials object of google-auth, or one that behaves like it."""
    return all(hasattr(given, name) for name in ("token", "expiry", "valid", "refresh"))


def _loaded(info: Mapping[str, Any], place: str) -> Any:
    """The object of google-auth for the content of a credentials file, not yet limited to a scope."""
    kind = info.get("type")
    try:
        if kind == "service_account":
            return _service_account(info)
        if kind == "authorized_user":
            module = _import("google.oauth2.credentials")
            return module.Credentials.from_authorized_user_info(dict(info))
        if kind == "external_account":
            return _external(info)
        if kind == "external_account_authorized_user":
            module = _import("google.auth.external_account_authorized_user")
            return module.Credentials.from_info(dict(info))
        if kind == "impersonated_service_account":
            module = _import("google.auth.impersonated_credentials")
            return module.Credentials.from_impersonated_service_account_info(dict(info))
    except Error:
        raise
    except Exception as error:  # what google-auth and cryptography say may quote the file
        raise ConfigInvalidError(
            f"the credentials in {place} ({kind}) are incomplete or invalid: {type(error).__name__}"
        ) from None
    raise ConfigInvalidError(f"the credentials in {place} have a type that is not supported: {kind!r}")


def _service_account(info: Mapping[str, Any]) -> Any:
    """It signs its own tokens, without asking a server, unless the file names another server than Google's."""
    found = _import("google.oauth2.service_account").Credentials.from_service_account_info(dict(info))
    googles = str(info.get("token_uri", "")).startswith(
        ("https://oauth2.googleapis.com/", "https://accounts.google.com/", "https://www.googleapis.com/")
    )
    return found.with_always_use_jwt_access(True) if googles else found


def _external(info: Mapping[str, Any]) -> Any:
    """Another cloud's or provider's account, by the kind of its source as google-auth tells them apart."""
    if info.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
        module = _import("google.auth.aws")
    elif (info.get("credential_source") or {}).get("executable") is not None:
        module = _import("google.auth.pluggable")
    else:
        module = _import("google.auth.identity_pool")
    return module.Credentials.from_info(dict(info))


def _scoped(held: Any, scope: str) -> Any:
    """Limited to a scope, where that is possible: the token of a user has the scopes that the user agreed to."""
    return _import("google.auth.credentials").with_scopes_if_required(held, [scope])


def _has_key(held: Any) -> bool:
    """Whether it signs by itself. Others of google-auth that have `sign_bytes` ask Google, which must be wanted."""
    return hasattr(held.signer, "sign") and getattr(held.signer, "key_id", None) is not None


def _of_metadata_server(transport: Transport) -> Any:
    """The account of a machine in Google's cloud. UnauthenticatedError if this is none."""
    named = any(os.environ.get(name) for name in ("GCE_METADATA_HOST", "GCE_METADATA_ROOT"))
    if not (named or _is_of_google(transport)):
        raise UnauthenticatedError(
            "no Google credentials: no GOOGLE_APPLICATION_CREDENTIALS, no file of `gcloud auth application-default"
            " login`, no metadata server; set service_account=, bearer_token=, or anonymous=True for public objects"
        )
    return _import("google.auth.compute_engine").Credentials()


def _is_of_google(transport: Transport) -> bool:
    """Whether this machine is one of Google's cloud, by its name or its metadata server."""
    if os.environ.get("NO_GCE_CHECK") == "true":
        return False
    try:
        if _PRODUCT.read_text().startswith("Google"):
            return True
    except (OSError, UnicodeDecodeError):
        pass
    address = os.environ.get("GCE_METADATA_IP") or "169.254.169.254"
    try:
        with transport.session() as request:
            answer = request(f"http://{address}", headers={"Metadata-Flavor": "Google"}, timeout=_PING_S)
    except UnsupportedError:
        raise
    except Exception:  # google-auth wraps those of requests, not all of them
        return False
    return bool(answer.status == 200 and answer.headers.get("metadata-flavor") == "Google")


def _import(name: str) -> Any:
    """A module of google-auth, or `requests`, which it uses. UnsupportedError if it is not installed."""
    try:
        return __import__(name, fromlist=["*"])
    except ImportError as error:
        raise UnsupportedError(f"google-auth is missing ({error}): pip install 'rangeio[gcs]'") from None


class _told:
    """Turns exceptions of google-auth into errors, without what they quote of secrets."""

    def __init__(self, secrets: Callable[[], tuple[str, ...]]) -> None:
        self._secrets = secrets

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (Error, MemoryError)):
            raise _as_error(error, self._secrets()) from None


def _told_by(
    call: Callable[[bytes], bytes], secrets: Callable[[], tuple[str, ...]]
) -> Callable[[bytes], bytes]:
    def told(text: bytes) -> bytes:
        with _told(secrets):
            return call(text)

    return told


def _as_error(error: Exception, secrets: tuple[str, ...]) -> Error:
    """The error for an exception of google-auth. Its text is the server's: the code of RFC 6749, a reason."""
    name = type(error).__name__
    text = " ".join(str(error.args[0]).split()) if error.args else ""
    text = "".join(letter for letter in hidden(text, secrets) if letter.isprintable())[:_MOST_OF_A_MESSAGE]
    said = f"{name}: {text}" if text else name
    if name == "TransportError":
        return ConnectionFailedError(f"no token from Google: {said}")
    if getattr(error, "retryable", False):
        return ServerError(f"no token from Google: {said}")
    return UnauthenticatedError(f"no token from Google: {said}")
