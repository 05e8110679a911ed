"""What all requests of one service share: the endpoint, who asks, and who pays. Thread-safe."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.gcs.endpoint import Endpoint
from rangeio.gcs.identity import Identity, Transport, is_of_google
from rangeio.gcs.signing import SigningKey, hmac_key, presigned
from rangeio.http.credentials_call import called
from rangeio.http.fields import check_value, merged
from rangeio.http.redaction import secrets_of_fields
from rangeio.http.remote_object import Credentials, Fresh
from rangeio.http.tokens import check_private, checked_token, token_of
from rangeio.http.urls import Address
from rangeio.s3.signing import Keys, Signer

# A signature is reused for this long; servers accept it for 15 minutes in both directions.
_SAME_FOR_S = 60.0
_SIGNED = ("x-goog-", "x-amz-")
_PROJECT = "x-goog-user-project"


@dataclass(frozen=True, slots=True)
class Who:
    """The options that say who asks: at most one kind. The repr shows no values.

    service_account: the path or the content of a credentials file. credentials: a callable, or an object of
    google-auth. keys: an HMAC key. ConfigInvalidError for several kinds.
    """

    service_account: Any = field(default=None, repr=False)
    bearer_token: str | None = field(default=None, repr=False)
    credentials: Any = field(default=None, repr=False)
    keys: Keys | None = field(default=None, repr=False)
    anonymous: bool = False

    def __post_init__(self) -> None:
        given = [self.service_account, self.bearer_token, self.credentials, self.keys, self.anonymous or None]
        if sum(way is not None for way in given) > 1:
            raise ConfigInvalidError(
                "set only one of service_account, bearer_token, credentials, access_key_id and anonymous"
            )
        account = self.service_account
        if account is not None and not isinstance(account, (str, os.PathLike, Mapping)):
            raise ConfigInvalidError("service_account must be the path or the content of a credentials file")
        if isinstance(account, str) and account.lstrip().startswith("{"):
            raise ConfigInvalidError(
                "service_account must be a mapping if it is the content of a file: json.loads"
            )
        if self.credentials is not None and not (
            callable(self.credentials) or is_of_google(self.credentials)
        ):
            raise ConfigInvalidError(
                "credentials must be a callable that returns a mapping with bearer_token, or a Credentials object of"
                " google-auth"
            )

    @property
    def is_of_machine(self) -> bool:
        """Whether none is given, so that those of this machine are used."""
        return self == Who()


class Account:
    """Makes the header fields and signatures. headers: the caller's fields, checked."""

    def __init__(
        self,
        endpoint: Endpoint,
        who: Who,
        transport: Transport,
        user_project: str | None,
        headers: Mapping[str, str],
    ) -> None:
        self.endpoint = endpoint
        if endpoint.emulator and who.is_of_machine:
            who = Who(anonymous=True)
        self._who = who
        self._identity: Identity | None = None
        self.credentials = self._begun(transport)
        self._signer = None if who.keys is None else Signer(who.keys, "auto")
        self._user_project = None if user_project is None else check_value("user_project", user_project)
        self._headers = dict(headers)
        self.lists_by_json = False  # the XML API does not list
        self._check(transport.proxy)

    def _begun(self, transport: Transport) -> Credentials:
        who = self._who
        if who.anonymous or who.keys is not None:
            return Credentials({}, None)
        if who.bearer_token is not None:
            return Credentials(bearer(who.bearer_token), None)
        if who.credentials is not None and not is_of_google(who.credentials):
            given = who.credentials
            return Credentials({}, lambda: _login(token_of(called(given))))
        self._identity = Identity(
            who.service_account if who.credentials is None else who.credentials, transport
        )
        return Credentials({}, self._identity.token)

    def _check(self, proxy: str | None) -> None:
        """ConfigInvalidError if a token could be read by others, and for header fields that contradict the options."""
        names = {name.lower() for name in self._headers}
        if "authorization" in names and not self._who.anonymous:
            raise ConfigInvalidError("set anonymous=True to send an Authorization field of your own")
        if _PROJECT in names and self._user_project is not None:
            raise ConfigInvalidError(f"set only one of user_project and the header field {_PROJECT}")
        if self._who.anonymous or self._who.keys is not None:
            return
        check_private(self.endpoint.origin, proxy, "use an https endpoint, or anonymous=True")

    @property
    def signs(self) -> bool:
        """Whether requests are signed with an HMAC key, which the JSON API does not accept."""
        return self._signer is not None

    def whereabouts(self) -> str:
        """Which credentials are used and where they were found, for display."""
        if self._identity is not None:
            return self._identity.whereabouts()
        if self._who.keys is not None:
            return "access_key_id= and secret_access_key="
        if self._who.anonymous:
            return "none: STORAGE_EMULATOR_HOST is set" if self.endpoint.emulator else "anonymous=True"
        return "credentials=" if self._who.bearer_token is None else "bearer_token="

    # --- requests --------------------------------------------------------------------------------------------

    def query(self, **terms: str | None) -> str:
        """The query of a request: the terms that are not None, and who pays, if that has to be signed."""
        project = self._user_project if self._signer is not None else None
        return query_of(**terms, userProject=project)

    def stamp(self) -> tuple[object, ...]:
        """The state that the fields depend on besides the request."""
        return self.credentials.version, int(time.time() // _SAME_FOR_S) if self._signer else 0

    def fields(self, method: str, sent_to: Address) -> dict[str, str]:
        """The header fields: the caller's, who asks, and who pays."""
        if self._signer is not None:
            signed = {name: text for name, text in self._headers.items() if name.lower().startswith(_SIGNED)}
            fields = self._signer.fields(
                method, sent_to.origin.authority, sent_to.target, time.time(), signed
            )
            return merged(self._headers, fields)
        project = {} if self._user_project is None else {_PROJECT: self._user_project}
        return merged(self._headers, project, self.credentials.fields)

    def secrets(self) -> Iterator[str]:
        """Secrets that no message may show."""
        yield from secrets_of_fields(self._headers)
        yield from self.credentials.secrets()
        if self._identity is not None:
            yield from self._identity.secrets()
        if self._who.keys is not None:
            yield from (self._who.keys.access_key_id, self._who.keys.secret_access_key)

    # --- signed URLs -----------------------------------------------------------------------------------------

    def presigned(
        self, bucket: str, key: str, generation: str | None, expires_s: int, sign_as: str | None
    ) -> str:
        """A URL that needs no credentials; without any the plain URL. UnsupportedError without a key to sign with."""
        for name in self._headers:
            if name.lower().startswith("x-goog-encryption-"):
                raise UnsupportedError(
                    f"a signed URL cannot contain {name}, which is required to read the object"
                )
        query = query_of(generation=generation, userProject=self._user_project)
        address = self.endpoint.object(bucket, key, query)
        signing = self._signing_key(sign_as)
        if signing is None:
            return address.url
        target = presigned(signing, "GET", address.origin.host, address.target, time.time(), expires_s)
        return Address(address.origin, target).url

    def _signing_key(self, sign_as: str | None) -> SigningKey | None:
        if self._who.keys is not None:
            return hmac_key(self._who.keys.access_key_id, self._who.keys.secret_access_key)
        if self._who.anonymous:
            return None
        found = None if self._identity is None else self._identity.signing_key(sign_as)
        if found is None:
            raise UnsupportedError(
                "there is no key to sign a URL with: set service_account= to a file with a private key,"
                " access_key_id= and secret_access_key=, or sign_as= to a service account for which Google signs"
            )
        return found


def query_of(**terms: str | None) -> str:
    """A query of the terms that are not None, sorted as signatures require."""
    pairs = sorted((name.replace("_", "-"), value) for name, value in terms.items() if value is not None)
    return "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in pairs)


def bearer(token: object) -> dict[str, str]:
    """The header field for a token. ConfigInvalidError for one that cannot be sent; it shows no value."""
    return {"Authorization": f"Bearer {checked_token(token)}"}


def _login(given: tuple[str, float]) -> Fresh:
    token, expiry = given
    return bearer(token), expiry
