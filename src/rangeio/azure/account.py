"""State shared by the objects of one service: the endpoint, who asks, and the signatures made with an account key."""

import time
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from rangeio.azure.endpoint import Endpoint
from rangeio.azure.identity import Identity, secrets_of_sas
from rangeio.azure.signing import DelegationKey, Grant, delegation_sas, service_sas
from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.http.heads import Head
from rangeio.http.urls import Address
from rangeio.http.validation import http_date

# A signature is valid for this long, and used for its first ten minutes. Some accounts allow no longer ones.
_VALID_S, _SAME_FOR_S = 3600, 600
# Less than what is left of a signature when it is replaced, more than the duration of a request.
_FAR_OFF_S = 240.0
# Signatures that a request in flight may still use.
_MOST_BEFORE = 8


class Account:
    """Makes addresses. Thread-safe.

    A request signed with an account key (Shared Key) is signed with its range, so each needs a signature of its own,
    and none can be made by the core. Instead the key signs a SAS that allows to read and list the container, and is
    part of the address.
    """

    def __init__(self, endpoint: Endpoint, identity: Identity) -> None:
        self.endpoint, self.identity = endpoint, identity
        self._signed: dict[str, tuple[object, str]] = {}  # by container: what it was made for, and the SAS
        self._signed_before: tuple[str, ...] = ()
        self._delegated: tuple[DelegationKey, float] | None = None  # and when it expires
        self.skew_s = 0.0  # how far the servers' clock is ahead of ours

    def address(self, container: str, blob: str, terms: Mapping[str, str]) -> Address:
        """The address of a blob, or of the container, with the SAS if there is one. terms: of the query."""
        query = [f"{name}={quote(value, safe='-_.~')}" for name, value in terms.items()]
        sas = (
            self._sas(container) if "snapshot" not in terms else self._sas_of_snapshot(container, blob, terms)
        )
        return self.endpoint.address(container, blob, "&".join(filter(None, [*query, sas])))

    def stamp(self) -> tuple[object, ...]:
        """What an address depends on besides its names."""
        if self.identity.proof.account_key is None:
            return (self.identity.version,)
        return self.identity.version, int(self.now() // _SAME_FOR_S), self.skew_s

    def _sas(self, container: str) -> str:
        proof = self.identity.proof
        if proof.account_key is None:
            return proof.sas_token
        stamp = self.stamp()
        known, sas = self._signed.get(container, (None, ""))
        if known != stamp:
            self._remember(sas)
            sas = service_sas(proof.account_key, self._grant(container, "", {}, self._expires()))
            self._signed[container] = stamp, sas
        return sas

    def _sas_of_snapshot(self, container: str, blob: str, terms: Mapping[str, str]) -> str:
        """Azure accepts the SAS of the container, but Azurite only one of the snapshot itself."""
        proof = self.identity.proof
        if proof.account_key is None:
            return proof.sas_token
        sas = service_sas(proof.account_key, self._grant(container, blob, terms, self._expires()))
        self._remember(sas)
        return sas

    def _remember(self, sas: str) -> None:
        self._signed_before = (*self._signed_before[1 - _MOST_BEFORE :], sas)

    def _expires(self) -> float:
        return self.now() // _SAME_FOR_S * _SAME_FOR_S + _VALID_S

    def _grant(self, container: str, blob: str, terms: Mapping[str, str], expires: float) -> Grant:
        return Grant(
            container,
            blob,
            expires,
            https_only=self.endpoint.origin.scheme == "https",
            snapshot=terms.get("snapshot", ""),
            version=terms.get("versionid", ""),
        )

    def presigned(self, container: str, blob: str, terms: Mapping[str, str], expires: float) -> str:
        """A URL that needs no credentials, signed with the account key or a user delegation key, which must be there.

        expires: seconds since 1970, by the clock of the server (`now`).
        """
        grant = self._grant(container, blob, terms, expires)
        if self.identity.proof.account_key is not None:
            sas = service_sas(self.identity.proof.account_key, grant)
        else:
            assert self._delegated is not None
            sas = delegation_sas(self.endpoint.account, self._delegated[0], grant)
        query = [f"{name}={quote(value, safe='-_.~')}" for name, value in terms.items()]
        return self.endpoint.address(container, blob, "&".join([*query, sas])).url

    def lacks_key(self, expires: float) -> bool:
        """Whether a user delegation key has to be requested first. UnsupportedError if none can be had."""
        proof = self.identity.proof
        if proof.account_key is not None:
            return False
        if not proof.bearer_token:
            raise UnsupportedError(
                "only an account key or a token can sign a URL for others: set account_key=, connection_string=,"
                " bearer_token= or credentials="
            )
        if not self.endpoint.account:
            raise ConfigInvalidError("a URL signed with a token needs account=, the name of the account")
        return self._delegated is None or self._delegated[1] < expires

    def delegate(self, key: DelegationKey, expires: float) -> None:
        """Keep a user delegation key that is good until then."""
        self._delegated = key, expires

    def secrets(self) -> Iterator[str]:
        """Secrets that no message may show."""
        yield from self.identity.secrets()
        for sas in (*(sas for _, sas in [*self._signed.values()]), *self._signed_before):
            yield from secrets_of_sas(sas)
        if self._delegated is not None:
            yield self._delegated[0].value

    def now(self) -> float:
        """Seconds since 1970 by the clock of the server, as far as it is known."""
        return time.time() + self.skew_s

    def learn(self, head: Head) -> bool:
        """Use the server's clock for signatures if ours differs a lot. Returns whether a new request may help."""
        told = http_date(head.fields.get("date", ""))
        if self.identity.proof.account_key is None or told is None:
            return False
        if abs(told - self.now()) < _FAR_OFF_S:
            return False
        self.skew_s = told - time.time()
        return True
