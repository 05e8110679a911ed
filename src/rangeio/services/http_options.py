"""Options that all services over HTTP share: defaults, conditions, credentials and secrets."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rangeio.errors import ConfigInvalidError
from rangeio.http.fields import check_login, check_value, harmless
from rangeio.http.proxies import basic
from rangeio.http.remote_object import Access, Fresh
from rangeio.options import Options
from rangeio.pickled import advice_for

_CONDITIONS = {
    "if_match": "If-Match",
    "if_none_match": "If-None-Match",
    "if_modified_since": "If-Modified-Since",
    "if_unmodified_since": "If-Unmodified-Since",
}


# Of 16, 32, 48, 64, 128, 256, 512 and 1024 KiB the largest that fetches at most 1.05 times the requested bytes, for the
# bench's 500 ranges of a Parquet-like file, a fifth of them up to 64 KiB apart: 1.02, and half a request per range.
# 64 KiB fetches 1.05 to 1.06 times as many, 1 MiB 1.5. With a distant server (50 MB/s, 20 ms) 64 KiB was a tenth
# faster.
GAP = 48 << 10
CONCURRENT = 16
DEFAULTS = Options(gap=GAP, max_merged=8 << 20, chunk=8 << 20, concurrent=CONCURRENT, prefetch=64 << 20)
"""The defaults of services over HTTP."""


CONNECTION_OPTIONS = ("headers", "ca_file", "client_cert", "verify", "proxy")
"""Options of all services over HTTP: see `HttpService`."""


def policy_of(options: Options) -> dict[str, Any]:
    """The arguments of a `RemoteObject` that come from the options of an object."""
    return {
        "timeout": options.timeout,
        "retry": options.retry,
        "hedge_s": options.hedge,
        "pin": options.pin,
        "on_no_range": options.on_no_range,
        "cap": options.no_range_cap,
        "conditions": conditions(options),
        "size": options.size,
    }


def conditions(options: Options) -> dict[str, str]:
    """The header fields for the conditions that the first response must satisfy."""
    found = {}
    for name, field in _CONDITIONS.items():
        if (value := getattr(options, name)) is not None:
            found[field] = value
    return found


def options_to_keep(options: Mapping[str, Any], secret: Collection[str]) -> dict[str, Any]:
    """`options` without the names in `secret`, and without secrets in the options that all services over HTTP share."""
    kept = {name: value for name, value in options.items() if name not in secret}
    if "headers" in kept:
        kept["headers"] = harmless(kept["headers"] or {})
    if kept.get("proxy") and "@" in kept["proxy"]:
        del kept["proxy"]
    if isinstance(kept.get("client_cert"), (tuple, list)):
        kept["client_cert"] = tuple(kept["client_cert"][:2])  # the third item is the password of the key
    return kept


TRAVELS = "credentials= with a function of a module does"
"""What of the credentials another process gets with a pickle."""


def lacking(access: Access, names: Sequence[str], travels: str = TRAVELS) -> None:
    """Let errors of credentials say that these options did not travel. See `Service.lacks`."""
    access.credentials.advice = advice_for(names, travels)


def login_fields(
    headers: Mapping[str, str],
    auth: tuple[str, str] | None,
    bearer_token: str | None,
    credentials: Callable[[], Fresh] | None,
) -> dict[str, str]:
    """The Authorization field for at most one of the options. ConfigInvalidError if there are several.

    headers: the caller's header fields, which may contain an Authorization field.
    """
    if sum(given is not None for given in (auth, bearer_token, credentials)) > 1:
        raise ConfigInvalidError("set only one of auth, bearer_token and credentials")
    if (auth is not None or bearer_token is not None) and "authorization" in map(str.lower, headers):
        raise ConfigInvalidError("set only one of auth, bearer_token and an Authorization field in headers")
    if auth is not None:
        check_login("auth", *auth)
        if len(auth) != 2 or ":" in auth[0]:
            raise ConfigInvalidError("auth must be (user, password), and the user must not contain a colon")
        return {"Authorization": basic(*auth)}
    if bearer_token is not None:
        return {"Authorization": f"Bearer {check_value('bearer_token', bearer_token)}"}
    if credentials is not None and not callable(credentials):
        raise ConfigInvalidError("credentials must be a callable that returns header fields")
    return {}
