"""The service for az://, abfs:// and wasb://: blobs of Azure Blob Storage and Data Lake Storage."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rangeio.azure.account import Account
from rangeio.azure.endpoint import Endpoint, check_container, parse_rest
from rangeio.azure.identity import (
    Given,
    Identity,
    Principal,
    Proof,
    of_credential,
    proof_of,
    secrets_of_sas,
)
from rangeio.azure.listing import parse_page
from rangeio.azure.responses import EXPIRED, explained, parse_delegation_key, parse_refusal
from rangeio.azure.settings import Connection, of_environment, parse_connection_string
from rangeio.azure.signing import VERSION, time_text
from rangeio.errors import ConfigInvalidError, IsDirectoryError
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.fields import checked_fields, merged
from rangeio.http.heads import Head
from rangeio.http.listing import Page
from rangeio.http.proxies import is_private
from rangeio.http.redaction import secrets_of_fields
from rangeio.http.remote_object import Access, Refusal, RemoteObject
from rangeio.http.urls import Address
from rangeio.http.validation import End, Take, Version
from rangeio.options import Options
from rangeio.service import Location
from rangeio.services.http_options import CONNECTION_OPTIONS, TRAVELS, policy_of
from rangeio.services.http_source import HttpSource
from rangeio.services.http_store import KeyedStore, signature_lifetime
from rangeio.services.keys import Keys

if TYPE_CHECKING:
    from _uring import Reactor


_MOST_OF_A_KEY = 64 << 10
# A key is good for many URLs, so it is requested for longer than the shortest of them; and for a clock that is behind.
_LEAST_OF_A_KEY_S, _SKEW_S = 3600, 300


class AzureRemoteObject(RemoteObject):
    """One blob of a container, or a page of the container's listing. Its address contains the SAS, if there is one."""

    suffix_ranges = False
    stored_encoding = True

    def __init__(
        self,
        access: Access,
        account: Account,
        container: str,
        blob: str,
        terms: Mapping[str, str],
        options: Options,
    ) -> None:
        self._account = account
        self._container, self._blob, self._terms = container, blob, terms
        self._stamp = account.stamp()
        super().__init__(
            access,
            account.address(container, blob, terms),
            shown=f"az://{container}/{blob}",
            **policy_of(options),
        )

    @property
    def target(self) -> Address:
        """Its address with the current SAS."""
        stamp = self._account.stamp()
        if stamp != self._stamp:
            self.move(self._account.address(self._container, self._blob, self._terms))
            self._stamp = stamp  # afterwards: another thread must not take the address before for this one
        return super().target

    def judged(self, head: Head, at: int, stop: int) -> Take | End | None:
        """See `RemoteObject`. Azurite answers 206 without a byte where Azure answers 416."""
        _refuse_directory(head)
        if head.status == 206 and head.length == 0:
            total = re.search(r"/(\d{1,18})$", head.fields.get("content-range", ""))
            return End(int(total[1]) if total else 0 if at == 0 else None)
        return None

    def told_by_head(self, head: Head) -> int | None:
        """See `RemoteObject`. For a blob the length is right, also of an empty one and of an encoded one."""
        _refuse_directory(head)
        return head.length if "x-ms-blob-type" in head.fields else super().told_by_head(head)

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """The error for the code of Azure, if it says more than the status, and whether to repeat the request."""
        found = parse_refusal(head, body)
        general = super().refused(head, body, pinned=pinned).error
        error = explained(found, head.status, general, self.secrets())
        again = found.code == "AuthenticationFailed" and self._account.learn(head)
        return Refusal(error, renew=head.status == 401 or found.code in EXPIRED, again=again)

    def secrets(self) -> Iterator[str]:
        """See `RemoteObject`. Of a SAS, only the signature is a secret; the query of a redirect may be."""
        yield from self._account.secrets()
        yield from secrets_of_sas(self.address.target.partition("?")[2])
        yield from secrets_of_fields(self.access.fields)
        yield from self.secrets_of_redirects()


class _DelegationKey(AzureRemoteObject):
    """A user delegation key, which is requested with POST and read like an object.

    Source: Microsoft Learn, "Get User Delegation Key".
    """

    by_bytes = False
    ranges_alike = False

    def __init__(self, access: Access, account: Account, expires: float, options: Options) -> None:
        terms = {"restype": "service", "comp": "userdelegationkey"}
        super().__init__(access, account, "", "", terms, options)
        self.shown = f"the user delegation key of {account.endpoint.account}"
        period = f"<Start>{time_text(account.now() - _SKEW_S)}</Start><Expiry>{time_text(expires)}</Expiry>"
        self._body = f'<?xml version="1.0" encoding="utf-8"?><KeyInfo>{period}</KeyInfo>'.encode()

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        """See `RemoteObject`."""
        fields = f"Content-Type: application/xml\r\nContent-Length: {len(self._body)}\r\n\r\n"
        return (self._head("POST", target, absolute) + fields).encode("latin-1") + self._body


def _refuse_directory(head: Head) -> None:
    """A hierarchical namespace answers for a directory as for an empty blob."""
    fields = head.fields
    is_folder = fields.get("x-ms-meta-hdi_isfolder", "").lower() == "true"
    if is_folder or fields.get("x-ms-resource-type", "").lower() == "directory":
        raise IsDirectoryError("it is a directory; Operator.list() lists its content")


class AzureService(KeyedStore):
    """The blobs of one `container`, by name; with `root`, only those below this name. Without a container: those of all
    containers of the account, as ``container/blob``. Names are used as they are: "%20" is three characters.

    Account: account, the name; or endpoint_url, which ends with the name for Azurite and the like; or
    connection_string. Else AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ENDPOINT.

    Credentials, at most one of: account_key; sas_token; bearer_token; credentials, an object of azure-identity or a
    callable that returns a mapping with one of those three, and expires_at if it expires; tenant_id, client_id and
    client_secret; client_id alone, of a managed identity; anonymous=True. Else those of the connection string, those of
    the environment for this account (AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN and related variables), or
    those that azure-identity finds. Tokens are sent over https, and to this machine.

    Blobs: version= or snapshot= selects one of its states. headers: sent with each request, such as those of a key of
    the customer. The other options are those of `HttpService`.
    """

    scheme = "az"
    versions = True
    option_names = (
        "container",
        "root",
        "account",
        "endpoint_url",
        "connection_string",
        "account_key",
        "sas_token",
        "bearer_token",
        "credentials",
        "tenant_id",
        "client_id",
        "client_secret",
        "anonymous",
        *CONNECTION_OPTIONS,
    )
    object_option_names = ("snapshot",)
    secret_options = ("connection_string", "account_key", "sas_token", "bearer_token", "client_secret")
    travels = f"{TRAVELS}, or set AZURE_STORAGE_ACCOUNT_KEY or the like there"

    def __init__(
        self,
        reactor: "Reactor",
        container: str | None = None,
        root: str = "",
        *,
        account: str | None = None,
        endpoint_url: str | None = None,
        connection_string: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        bearer_token: str | None = None,
        credentials: Callable[[], Given] | Any = None,
        tenant_id: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        keys = Keys(container, root, check_container, "container")
        _check_principal(tenant_id, client_id, client_secret)
        principal = Principal(
            tenant_id or "", client_id or "", client_secret or "", ca_file, bool(verify), proxy
        )
        said = None if connection_string is None else parse_connection_string(connection_string)
        endpoint, found = _endpoint(account, endpoint_url, said)
        identity = _identity(
            endpoint,
            found,
            principal,
            account_key=account_key,
            sas_token=sas_token,
            bearer_token=bearer_token,
            credentials=credentials,
            client_id=client_id,
            anonymous=anonymous or None,
            connection_string=said if said and (said.account_key or said.sas_token) else None,
        )
        self._account = Account(endpoint, identity)
        fields = checked_fields(headers or {})
        if "authorization" in map(str.lower, fields) and not anonymous:
            raise ConfigInvalidError(
                "an Authorization field in headers needs anonymous=True: set only one of them"
            )
        pool = ConnectionPool(Security(ca_file, client_cert, bool(verify)), proxy)
        super().__init__(reactor, Access(pool, merged({"x-ms-version": VERSION}, fields), identity), keys)

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """``az://container/blob`` or ``abfss://container@account.dfs.core.windows.net/blob``: the name as it is."""
        return Location(*parse_rest(rest))

    def shown(self, path: str) -> str:
        container, blob = self._keys.place(path)
        return f"az://{container}/{blob}"

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """See `Service`."""
        yield "endpoint", self._account.endpoint.url
        yield "credentials", self._account.identity.whereabouts()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        kept = super().without_secrets(options)
        if "connection_string" in options:
            kept = {**_place(self._account.endpoint), **kept}
        if "client_secret" in options:
            kept.pop("tenant_id", None)
            kept.pop("client_id", None)
        if hasattr(kept.get("credentials"), "get_token"):
            del kept["credentials"]  # it holds secrets
        return kept

    def _remote(self, path: str, options: Options) -> AzureRemoteObject:
        container, blob = self._keys.object(path)
        return AzureRemoteObject(
            self.access, self._account, container, blob, _state_of_blob(options), options
        )

    def presign(self, path: str, expires: float | timedelta, options: Options) -> str:
        seconds = signature_lifetime(expires)
        container, blob = self._keys.object(path)
        self._account.identity.fetch()
        expires = self._account.now() + seconds
        if self._account.lacks_key(expires):
            self._request_key(max(expires, self._account.now() + _LEAST_OF_A_KEY_S), options)
        return self._account.presigned(container, blob, _state_of_blob(options), expires)

    def _request_key(self, expires: float, options: Options) -> None:
        """Exchange the token for a user delegation key: one request."""
        policy = replace(
            self.defaults,
            timeout=options.timeout,
            retry=options.retry,
            pin=False,
            chunk=None,
            on_no_range="slice",
        )
        remote = _DelegationKey(self.access, self._account, expires, policy)
        source = HttpSource(self._reactor, remote, policy)
        try:
            key = parse_delegation_key(memoryview(source.read_at(0, _MOST_OF_A_KEY)))
        finally:
            source.close()
        self._account.delegate(key, expires)

    def page_request(
        self, bucket: str, prefix: str, delimiter: str | None, after: Any, options: Options
    ) -> RemoteObject:
        """See `KeyedStore`."""
        terms = {"restype": "container", "comp": "list", "prefix": prefix}
        terms |= {"delimiter": delimiter} if delimiter else {}
        terms |= {"marker": after} if after else {}
        return AzureRemoteObject(self.access, self._account, bucket, "", terms, options)

    def page_of(self, body: memoryview, remote: RemoteObject) -> Page:
        """See `KeyedStore`."""
        return parse_page(body)


def _state_of_blob(options: Options) -> dict[str, str]:
    """The terms of the query for version= or snapshot=. ConfigInvalidError for both, and for what cannot be sent."""
    snapshot = options.own.get("snapshot")
    if snapshot is None:
        return {} if options.version is None else {"versionid": options.version}
    if options.version is not None:
        raise ConfigInvalidError("set only one of version and snapshot")
    if not isinstance(snapshot, str) or not snapshot.isascii() or not snapshot.isprintable() or not snapshot:
        raise ConfigInvalidError(f"snapshot must be the time of a snapshot as a string, not {snapshot!r}")
    return {"snapshot": snapshot}


def _place(endpoint: Endpoint) -> dict[str, str]:
    return {"account": endpoint.account, "endpoint_url": endpoint.url}


# --- options -------------------------------------------------------------------------------------------------


def _endpoint(account: str | None, url: str | None, said: Connection | None) -> tuple[Endpoint, Connection]:
    """The endpoint, and what else is known for its account. said: the connection string.

    The environment counts only for the account that it names: a SAS is a secret of one account.
    """
    if said is not None:
        if account is not None and said.account not in (None, account):
            raise ConfigInvalidError(f"connection_string is of another account than account={account!r}")
        return Endpoint.of(account or said.account, url or said.endpoint_url), said
    found = of_environment()
    if account is None and url is None:
        return Endpoint.of(found.account, found.endpoint_url), found
    if account is not None and found.account is not None and account != found.account:
        return Endpoint.of(account, url), Connection()
    endpoint = Endpoint.of(account or (found.account if url is None else None), url or found.endpoint_url)
    same = found.account in (None, endpoint.account) or not endpoint.account
    return endpoint, found if same else Connection()


def _check_principal(tenant_id: str | None, client_id: str | None, client_secret: str | None) -> None:
    if client_secret is not None and None in (tenant_id, client_id):
        raise ConfigInvalidError("client_secret needs tenant_id and client_id")
    if tenant_id is not None and client_secret is None:
        raise ConfigInvalidError("tenant_id needs client_id and client_secret")


def _identity(endpoint: Endpoint, found: Connection, principal: Principal, **ways: Any) -> Identity:
    """The Identity for the one given way, or for what was found. ConfigInvalidError if several are given."""
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) > 1:
        raise ConfigInvalidError(f"set only one of {' and '.join(given)}")
    name, value = next(iter(given.items()), ("", None))
    said = f"{name}="
    if name in ("", "connection_string"):
        if found.account_key or found.sas_token:
            name = "account_key" if found.account_key else "sas_token"
            value = found.account_key or found.sas_token
            said = f"{'an account key' if found.account_key else 'a SAS'} in {found.found_in or said}"
        else:
            name = "client_id"
    account, exposed = endpoint.account, not is_private(endpoint.origin, principal.proxy)
    if name == "anonymous":
        return Identity(Proof(), said="anonymous=True")
    if name == "client_id":
        return Identity(None, principal, exposed=exposed, tokens=True)
    if name != "credentials":
        return Identity(proof_of({name: value}, account), exposed=exposed, said=said)
    if hasattr(value, "get_token"):
        return Identity(None, of_credential(value), exposed=exposed, tokens=True, said=said)
    if not callable(value):
        raise ConfigInvalidError(
            "credentials must be an object of azure-identity, or a callable that returns a mapping"
        )
    return Identity(None, value, account=account, exposed=exposed, said=said)
