"""Who reads: a user by name, or a delegation token, given or fetched by Kerberos."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from rangeio.errors import ConfigInvalidError, UnexpectedError
from rangeio.http.remote_object import Credentials


class Login(Credentials):
    """The part of each query that says who reads. Both the header fields and the repr are without it.

    user: None for the server's default. token: a delegation token. source: returns a new one; called at the first
    request and when the server rejects the token.
    """

    def __init__(
        self, user: str | None = None, token: str | None = None, source: Callable[[], str] | None = None
    ) -> None:
        super().__init__({}, source)
        self._user = _checked("user", user)
        self._token, self._token_before = _checked("delegation_token", token), ""

    @property
    def query(self) -> str:
        """To be appended to a query: one term with its ampersand, or nothing."""
        if self._token:
            return "&delegation=" + quote(self._token, safe="-_.~")
        return "&user.name=" + quote(self._user, safe="-_.~") if self._user else ""

    @property
    def has_token(self) -> bool:
        """Whether a query contains a secret, or will."""
        return bool(self._token) or self.renewable

    def accept(self, given: Any) -> float:
        """See `Credentials`. Tokens expire after a day by default, which the server does not tell: it rejects them."""
        self._token, self._token_before = _checked("the delegation token", given), self._token
        return float("inf")

    def secrets(self) -> Iterator[str]:
        """See `Credentials`."""
        yield from filter(None, (self._token, self._token_before))


def _checked(name: str, value: str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ConfigInvalidError(f"{name} must be a string of printable ASCII characters")
    return value


def parse_token(body: "bytes | memoryview") -> str:
    """The token in a response to GETDELEGATIONTOKEN."""
    try:
        token = json.loads(bytes(body))["Token"]["urlString"]
    except (ValueError, LookupError, TypeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token:
        raise UnexpectedError(
            "HTTP 200: the response has no delegation token: is security on in this cluster?"
        )
    return token
