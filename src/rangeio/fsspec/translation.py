"""From the `storage_options` that users of s3fs, gcsfs, adlfs and others have to the options of an Operator."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from rangeio.errors import ConfigInvalidError
from rangeio.options import OPTION_NAMES, check_names
from rangeio.services.registry import service_class

# Of caches, block sizes and clients that are not ours: accepted, so that code of others runs, and without effect.
WITHOUT_EFFECT = (
    "default_block_size",
    "default_fill_cache",
    "default_cache_type",
    "cache_regions",
    "config_kwargs",
    "max_concurrency",
    "size_policy",
    *("access", "check_connection", "consistency", "default_location", "location_mode", "socket_timeout"),
)
_S3_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "anon": "anonymous",
}
_PLACES = ("bucket", "container", "repo", "root")
"""Options that are part of paths here."""
_AZURE_NAMES = {"account_name": "account", "credential": "credentials", "anon": "anonymous"}
SECRETS = {
    *(name for name in (*_S3_NAMES, *_S3_NAMES.values()) if not name.startswith("anon")),
    *("credentials", "password", "auth", "bearer_token"),
    *("headers", "client_kwargs", "client_cert", "proxy"),
    *("service_account", "credential", "account_key", "sas_token", "connection_string", "client_secret"),
    "delegation_token",
    "objects",
}
"""Names of storage options that may hold a secret, or objects themselves."""


def translated(scheme: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an Operator of `scheme`. ConfigInvalidError for an unknown name, with the nearest known one."""
    options = {name: value for name, value in given.items() if name not in WITHOUT_EFFECT}
    change = _CHANGES.get(scheme)
    own = [name for name in service_class(scheme).option_names if name not in _PLACES]
    theirs = _THEIRS.get(scheme, ())
    known = [*own, *OPTION_NAMES, *service_class(scheme).object_option_names, *theirs, *WITHOUT_EFFECT]
    check_names(options, known, f"storage option of {scheme!r}")
    return options if change is None else change(options)


def _s3(options: dict[str, Any]) -> dict[str, Any]:
    client = _client_kwargs(options, ("endpoint_url", "region_name", "verify"))
    pays, secure = options.pop("requester_pays", False), options.pop("use_ssl", True)
    for theirs, ours in _S3_NAMES.items():
        if theirs in options:
            _put(options, ours, options.pop(theirs), theirs)
    if client.get("endpoint_url") is not None and options.get("endpoint_url") is None:
        options["endpoint_url"] = client["endpoint_url"]
    if client.get("region_name") is not None and options.get("region") is None:
        options["region"] = client["region_name"]
    if "verify" in client:
        _verify(options, client["verify"])
    if pays:
        options["headers"] = {**(options.get("headers") or {}), "x-amz-request-payer": "requester"}
    if not secure and options.get("endpoint_url") is None:
        options["endpoint_url"] = f"http://s3.{options.get('region') or 'us-east-1'}.amazonaws.com"
    return options


def _http(options: dict[str, Any]) -> dict[str, Any]:
    client = _client_kwargs(options, ("headers", "auth"))
    if client.get("headers"):
        options["headers"] = {**client["headers"], **(options.get("headers") or {})}
    if client.get("auth") is not None and options.get("auth") is None:
        user, password, *_ = client["auth"]  # aiohttp.BasicAuth has an encoding as its third item
        options["auth"] = (user, password)
    return options


def _gs(options: dict[str, Any]) -> dict[str, Any]:
    project, pays = options.pop("project", None), options.pop("requester_pays", False)
    if pays:
        _put(options, "user_project", pays if isinstance(pays, str) else project, "requester_pays")
    token = options.pop("token", None)
    if token == "anon":
        options["anonymous"] = True
    elif isinstance(token, str) and token.startswith("ya29."):
        _put(options, "bearer_token", token, "token")
    elif isinstance(token, Mapping) or (isinstance(token, (str, os.PathLike)) and os.path.exists(token)):
        _put(options, "service_account", token, "token")
    elif isinstance(token, str):
        if token not in ("google_default", "cloud"):
            raise ConfigInvalidError(
                "token must be 'anon', 'google_default', 'cloud' or the path of a credentials file; "
                "an access token is bearer_token"
            )
    else:
        _put(options, "credentials", token, "token")
    return options


def _az(options: dict[str, Any]) -> dict[str, Any]:
    for theirs, ours in _AZURE_NAMES.items():
        if theirs in options:
            _put(options, ours, options.pop(theirs), theirs)
    return options


def _webhdfs(options: dict[str, Any]) -> dict[str, Any]:
    host, port = options.pop("host", None), options.pop("port", None)
    if host is not None:
        _put(options, "cluster", host if port is None else f"{host}:{port}", "host")
    _put(options, "delegation_token", options.pop("token", None), "token")
    return options


def _hf(options: dict[str, Any]) -> dict[str, Any]:
    token = options.pop("token", None)
    if token is False:
        options["anonymous"] = True
    elif token is not True:
        _put(options, "bearer_token", token, "token")
    _put(options, "endpoint_url", options.pop("endpoint", None), "endpoint")
    return options


def _client_kwargs(options: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    client = dict(options.pop("client_kwargs", None) or {})
    check_names(client, known, "name in client_kwargs")
    return client


def _verify(options: dict[str, Any], value: Any) -> None:
    if isinstance(value, str):
        options.setdefault("ca_file", value)
    elif value is not None:
        options.setdefault("verify", bool(value))


def _put(options: dict[str, Any], name: str, value: Any, given_as: str) -> None:
    if options.get(name) is not None and value is not None:
        raise ConfigInvalidError(f"set only one of {given_as} and {name}")
    if value is not None:
        options[name] = value


_CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "s3": _s3,
    "http": _http,
    "gs": _gs,
    "az": _az,
    "webhdfs": _webhdfs,
    "hf": _hf,
}
_THEIRS: dict[str, tuple[str, ...]] = {
    "s3": (*_S3_NAMES, "client_kwargs", "requester_pays", "use_ssl"),
    "http": ("client_kwargs",),
    "gs": ("token", "requester_pays", "project"),
    "az": tuple(_AZURE_NAMES),
    "webhdfs": ("host", "port", "token"),
    "hf": ("token", "endpoint"),
}
