"""A token over plain http stays within this machine: a proxy elsewhere could read it, whatever the endpoint is."""

from typing import Any

import pytest
from faults.machine import need_module

import rangeio

need_module("urllib3")

HERE = "http://127.0.0.1:9"
ENDPOINTS: dict[str, dict[str, Any]] = {
    "gs": {"endpoint_url": HERE, "bearer_token": "T0ken"},
    "az": {"endpoint_url": f"{HERE}/account", "bearer_token": "T0ken"},
    "hf": {"endpoint_url": HERE, "bearer_token": "T0ken"},
    "webhdfs": {"cluster": "127.0.0.1:9", "delegation_token": "T0ken"},
}


@pytest.mark.parametrize("scheme", ENDPOINTS)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_proxy_elsewhere(scheme: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ENDPOINTS[scheme]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    rangeio.Operator(scheme, **options)
    if by == "option":
        rangeio.Operator(scheme, proxy="http://127.0.0.1:3128", **options)
        options = {**options, "proxy": "http://proxy.example:3128"}
    else:
        monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    with pytest.raises(rangeio.ConfigInvalidError, match=r"others (can|could) read"):
        rangeio.Operator(scheme, **options)
