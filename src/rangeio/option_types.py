"""The options of `rangeio.open`, `Operator` and their objects for type checkers and editors.

`Options` says what they mean; the services in `rangeio.services` say what theirs mean. Services of other distributions
may have more: pass those as a dict, ``open(uri, **{"name": value})``, which a type checker does not look into.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from rangeio.policy import Retry, Timeout

Path = str | os.PathLike[str]


class ObjectOptions(TypedDict, total=False):
    """Those of one object: see `Options`."""

    gap: int | Literal["auto"] | None
    max_merged: int | None
    chunk: int | None
    concurrent: int | None
    prefetch: int | None
    size: int | None
    pin: bool
    direct: bool | Literal["auto"]
    mapped: bool
    timeout: Timeout | float | None
    retry: Retry | int | bool | None
    hedge: float | None
    on_no_range: Literal["error", "slice", "download"]
    no_range_cap: int
    if_match: str | None
    if_none_match: str | None
    if_modified_since: str | None
    if_unmodified_since: str | None
    version: str | None
    snapshot: str | None


class OpenOptions(ObjectOptions, total=False):
    """Those, and the options of all services that come with rangeio."""

    root: Path | None
    objects: Mapping[str, bytes] | None
    # All over HTTP.
    headers: Mapping[str, str] | None
    ca_file: str | None
    client_cert: str | tuple[str, ...] | None
    verify: bool
    proxy: str | None
    insecure_redirects: bool
    # Who asks.
    anonymous: bool
    auth: tuple[str, str] | None
    bearer_token: str | None
    credentials: Callable[[], Any] | Any
    access_key_id: str | None
    secret_access_key: str | None
    session_token: str | None
    profile: str | None
    credentials_file: Path | None
    service_account: Path | Mapping[str, Any] | None
    user_project: str | None
    sign_as: str | None
    connection_string: str | None
    account_key: str | None
    sas_token: str | None
    tenant_id: str | None
    client_id: str | None
    client_secret: str | None
    user: str | None
    delegation_token: str | None
    kerberos: bool
    kerberos_principal: str | None
    kerberos_keytab: str | None
    kerberos_cache: str | None
    # Where.
    bucket: str | None
    container: str | None
    account: str | None
    repo: str | None
    cluster: str | None
    namenodes: Sequence[str] | None
    endpoint_url: str | None
    region: str | None
    addressing: Literal["auto", "path", "virtual"] | None
    dualstack: bool | None
    data_proxy: Callable[[str], str] | Mapping[str, str] | None
    insecure_tokens: bool
    settings: Mapping[str, str] | None
