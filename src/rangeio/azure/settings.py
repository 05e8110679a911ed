"""Settings of Azure Storage: connection strings, and the environment variables that its tools and libraries use."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rangeio.azure.endpoint import SUFFIX
from rangeio.errors import ConfigInvalidError


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connection string says, or the environment. The repr shows no secrets. found_in: where the key or the SAS
    was found, for display.
    """

    account: str | None = None
    endpoint_url: str | None = None
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    found_in: str = ""


# Published by Microsoft for Azurite and its predecessors: no secret.
_DEVELOPMENT = Connection(
    "devstoreaccount1",
    "http://127.0.0.1:10000/devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)


def parse_connection_string(text: str) -> Connection:
    """Parse a connection string. ConfigInvalidError if it is not one; the error does not show it.

    Source: Microsoft Learn, "Configure Azure Storage connection strings".
    """
    if not isinstance(text, str):
        raise ConfigInvalidError(f"connection_string must be a string, not {type(text).__name__}")
    terms = {}
    for term in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = term.partition("=")
        if not equals:
            raise ConfigInvalidError("connection_string must consist of name=value, separated by semicolons")
        terms[name.strip().lower()] = value.strip()
    if terms.get("usedevelopmentstorage", "").lower() == "true":
        return _DEVELOPMENT
    account = terms.get("accountname") or None
    url = terms.get("blobendpoint") or None
    if url is None and account is not None:
        scheme = terms.get("defaultendpointsprotocol", "https").lower()
        url = f"{scheme}://{account}.blob.{terms.get('endpointsuffix') or SUFFIX}"
    if url is None:
        raise ConfigInvalidError("connection_string has neither AccountName nor BlobEndpoint")
    url, _, query = url.partition("?")  # some tools append the SAS to the endpoint
    sas = terms.get("sharedaccesssignature") or query or None
    return Connection(account, url, terms.get("accountkey") or None, sas)


def of_environment(environ: Mapping[str, str] = os.environ) -> Connection:
    """What the environment says: AZURE_STORAGE_CONNECTION_STRING, or else the variables for its parts."""

    def found(*names: str) -> str:
        variables = (f"AZURE_STORAGE_{name}" for name in names)
        return next((name for name in variables if environ.get(name, "").strip()), "")

    def read(*names: str) -> str | None:
        return environ.get(found(*names), "").strip() or None

    text = read("CONNECTION_STRING")
    if text is not None:
        try:
            return replace(parse_connection_string(text), found_in="AZURE_STORAGE_CONNECTION_STRING")
        except ConfigInvalidError as error:
            raise ConfigInvalidError(f"AZURE_STORAGE_CONNECTION_STRING: {error}") from None
    keys, signatures = ("ACCOUNT_KEY", "KEY", "ACCESS_KEY"), ("SAS_TOKEN", "SAS_KEY")
    return Connection(
        read("ACCOUNT_NAME", "ACCOUNT"),
        read("ENDPOINT"),
        read(*keys),
        read(*signatures),
        found(*keys) or found(*signatures),
    )
