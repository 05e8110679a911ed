"""Who asks: an account key, a shared access signature (SAS), a token, or nobody; given, or found by azure-identity."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from rangeio.azure.signing import AccountKey
from rangeio.errors import ConfigInvalidError, ConnectionFailedError, UnauthenticatedError
from rangeio.http.fields import check_value
from rangeio.http.redaction import Quoted, hidden
from rangeio.http.remote_object import Credentials
from rangeio.http.tokens import checked_token, expiry_of

Given: TypeAlias = Mapping[str, Any]
"""Return value of a credentials callable: one of bearer_token, sas_token and account_key, and optionally expires_at."""

SCOPE = "https://storage.azure.com/.default"
_KINDS = ("bearer_token", "sas_token", "account_key")
_MOST_OF_A_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Proof:
    """One of the ways to show who asks; none of them for public containers. The repr shows nothing.

    expires: seconds since 1970.
    """

    bearer_token: str = field(default="", repr=False)
    sas_token: str = field(default="", repr=False)
    account_key: AccountKey | None = field(default=None, repr=False)
    expires: float = field(default=float("inf"), repr=False)

    def secrets(self) -> Iterator[str]:
        """What no message may show."""
        yield self.bearer_token
        yield self.account_key.text if self.account_key else ""
        yield self.sas_token
        yield from secrets_of_sas(self.sas_token)


class Identity(Credentials):
    """The current proof. Gets another at the first request, before it expires, and when a server rejects it.

    account: whose key a callable may return. exposed: others can read what is sent, so that tokens are refused.
    tokens: the source returns nothing else. said: where the proof comes from, for display.
    """

    def __init__(
        self,
        proof: Proof | None,
        source: Callable[[], Any] | None = None,
        *,
        account: str = "",
        exposed: bool = False,
        tokens: bool = False,
        said: str = "",
    ) -> None:
        """source: returns a `Proof` or what `proof_of` accepts; may block; called once for all waiting reads."""
        self.proof = proof or Proof()
        self._proof_before = Proof()
        self._account, self._exposed = account, exposed
        self._said = said
        super().__init__({}, source)
        self._check_exposure(tokens)
        self._show(self.proof)

    def _check_exposure(self, tokens: bool) -> None:
        if tokens and self._exposed:
            raise ConfigInvalidError(
                "a token would be sent over plain http, where others can read it: use an https endpoint, account_key=,"
                " sas_token= or anonymous=True"
            )

    def _show(self, proof: Proof) -> None:
        self._check_exposure(bool(proof.bearer_token))
        self._fields = {"Authorization": f"Bearer {proof.bearer_token}"} if proof.bearer_token else {}

    def whereabouts(self) -> str:
        """Where the proof comes from, for display. Gets a token of azure-identity if it is one; UnauthenticatedError if
        that fails.
        """
        if not isinstance(self._source, Principal):
            return self._said
        self.fetch()
        return self._source.whereabouts()

    def accept(self, given: Any) -> float:
        """See `Credentials`."""
        proof = given if isinstance(given, Proof) else proof_of(given, self._account)
        before = self._fields
        self._show(proof)
        self.proof, self._proof_before, self._fields_before = proof, self.proof, before
        return proof.expires

    def secrets(self) -> Iterator[str]:
        """See `Credentials`."""
        for proof in (self.proof, self._proof_before):
            yield from proof.secrets()


def proof_of(given: Any, account: str) -> Proof:
    """A proof from a mapping. ConfigInvalidError unless it holds exactly one; the error shows no value.

    expires_at: a datetime with a time zone, or seconds since 1970; by default that of the SAS, if it says.
    """
    if not isinstance(given, Mapping):
        raise ConfigInvalidError(
            f"credentials() must return a mapping with one of {', '.join(_KINDS)}, not {type(given).__name__}"
        )
    unknown = sorted(set(map(str, given)) - {*_KINDS, "expires_at"})
    if unknown:
        raise ConfigInvalidError(
            f"credentials() returned unknown {unknown[0]!r}; known: {', '.join([*_KINDS, 'expires_at'])}"
        )
    kinds = [name for name in _KINDS if given.get(name) is not None]
    if len(kinds) != 1:
        raise ConfigInvalidError(f"credentials() must return exactly one of {', '.join(_KINDS)}")
    expires = expiry_of(given.get("expires_at"))
    if kinds == ["account_key"]:
        return Proof(account_key=AccountKey(account, given["account_key"]), expires=expires)
    if kinds == ["bearer_token"]:
        return Proof(bearer_token=checked_token(given["bearer_token"]), expires=expires)
    sas = checked_sas(given["sas_token"])
    return Proof(sas_token=sas, expires=min(expires, _expiry_of_sas(sas)))


def checked_sas(token: Any) -> str:
    """The SAS without a leading ``?``. ConfigInvalidError unless it is one; the error does not show it."""
    text = check_value("sas_token", token).strip().removeprefix("?")
    if not re.fullmatch(r"[!-~]+", text) or "#" in text or not re.search(r"(?:^|&)sig=.", text):
        raise ConfigInvalidError("sas_token must be the query of a shared access signature: sv=...&sig=...")
    return text


def secrets_of_sas(text: str) -> Iterator[str]:
    """The signature in a query; its other terms are no secrets, and are ordinary words."""
    for term in text.split("&"):
        name, _, value = term.partition("=")
        if name.lower() == "sig":
            yield value


def _expiry_of_sas(text: str) -> float:
    said = dict(parse_qsl(text)).get("se", "")
    try:
        date = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", said))
    except ValueError:
        return float("inf")  # of a stored access policy, or in a form that only the server needs to know
    return date.timestamp() if date.tzinfo else float("inf")


def of_credential(credential: Any, secrets: tuple[str, ...] = ()) -> Callable[[], Proof]:
    """A function that gets a token from an object of azure-identity, or one like it. secrets: what its errors must not
    show.
    """
    if inspect.iscoroutinefunction(credential.get_token):
        raise ConfigInvalidError(
            "credentials must not be of azure.identity.aio: the object's get_token is called on a worker thread"
        )

    def get() -> Proof:
        try:
            found = credential.get_token(SCOPE)
        except Exception as error:
            raise _failed(error, secrets) from error
        return Proof(bearer_token=checked_token(found.token), expires=float(found.expires_on))

    return get


def _failed(error: Exception, secrets: tuple[str, ...]) -> UnauthenticatedError | ConnectionFailedError:
    """The error for a failure of azure-identity, whose message says which ways it tried."""
    text = hidden(" ".join(str(getattr(error, "message", error)).split()), secrets)[:_MOST_OF_A_MESSAGE]
    unreachable = any(
        kind.__name__ in ("ServiceRequestError", "ServiceResponseError") for kind in type(error).mro()
    )
    kind = ConnectionFailedError if unreachable else UnauthenticatedError
    what = "no token, which is needed unless account_key=, sas_token= or anonymous=True is set: "
    return kind(what + Quoted(f"{type(error).__name__}: {text}"))


@dataclass(frozen=True, slots=True)
class Principal:
    """Gets tokens by azure-identity, which is imported at the first call; its authority is reached as the service is.

    With `client_secret` those of that service principal, else as DefaultAzureCredential finds them: by the environment,
    a workload identity, a managed identity (`client_id`), the Azure CLI and others. UnauthenticatedError for none.
    """

    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    ca_file: str | None = None
    verify: bool = True
    proxy: str | None = field(default=None, repr=False)
    _made: list[Any] = field(default_factory=list, repr=False, compare=False)

    def __call__(self) -> Proof:
        if not self._made:
            self._made.append(self._credential())
        return of_credential(self._made[0], tuple(filter(None, (self.client_secret, self.proxy))))()

    def whereabouts(self) -> str:
        """Whose tokens they are, for display, once there is one; of a chain the member that had it."""
        if self.client_secret:
            return "tenant_id=, client_id= and client_secret="
        # The library tells its member to its log only.
        member = getattr(self._made[0], "_successful_credential", None) or self._made[0]
        return f"a token of azure-identity, from its {type(member).__name__}"

    def _credential(self) -> Any:
        identity = _azure_identity()
        options: dict[str, Any] = {}
        if self.ca_file is not None or not self.verify:
            options["connection_verify"] = self.ca_file if self.verify else False
        if self.proxy is not None:
            options["proxies"] = {
                "https": self.proxy
            }  # a managed identity is reached by http, on this machine
        if self.client_secret:
            return identity.ClientSecretCredential(
                self.tenant_id, self.client_id, self.client_secret, **options
            )
        if self.client_id:
            options["managed_identity_client_id"] = self.client_id
        return identity.DefaultAzureCredential(**options)


def _azure_identity() -> Any:
    try:
        import azure.identity
    except ImportError:
        raise UnauthenticatedError(
            "no Azure credentials: neither the options nor the environment has a key or a SAS; pip install"
            " 'rangeio[azure]' to get tokens by azure-identity, or set anonymous=True for public containers"
        ) from None
    return azure.identity
