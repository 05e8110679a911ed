"""The address of a container: the host of an account, or an endpoint whose path begins with its name; URIs of Azure."""

import re
from dataclasses import dataclass

from rangeio.errors import ConfigInvalidError
from rangeio.http.urls import Address, Origin, parse_url, quoted

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}(-secondary)?")
_CONTAINER = re.compile(r"\$[a-z]{3,20}|[a-z0-9](?:[a-z0-9]|-(?!-)){1,61}[a-z0-9]")
_OF_AZURE = re.compile(r"(?P<account>[a-z0-9-]+)\.(?P<rest>(?:z\d+\.)?(?:blob|dfs)\..+)", re.IGNORECASE)
_CLOUDS = re.compile(
    r"(?:blob|dfs)\.core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn|cloudapi\.de)"
    r"|z\d+\.(?:blob|dfs)\.storage\.azure\.net",
    re.IGNORECASE,
)
SUFFIX = "core.windows.net"
"""Of the hosts of the public cloud; those of others are named by an endpoint or by a connection string."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One account. account: its name, which signatures need; empty if it is unknown. base: the path before the name of
    a container.
    """

    account: str
    origin: Origin
    base: str = ""

    @classmethod
    def of(cls, account: str | None, url: str | None) -> "Endpoint":
        """The endpoint with this URL, else that of the account in the public cloud. ConfigInvalidError for neither.

        A host of Data Lake Storage (``dfs``) is replaced by that of the same account's blobs.
        """
        if url is None:
            if account is None:
                raise ConfigInvalidError(
                    "no account: set account=, endpoint_url= or connection_string=, or AZURE_STORAGE_ACCOUNT_NAME"
                )
            check_account(account)
            url = f"https://{account}.blob.{SUFFIX}"
        given = parse_url(url)
        if "?" in given.target or given.login:
            raise ConfigInvalidError("endpoint_url must be a URL without login and query; see sas_token=")
        base, host = given.target.rstrip("/"), given.origin.host
        found = _OF_AZURE.fullmatch(host)
        if found is not None:
            host = host.replace(".dfs.", ".blob.", 1)
        named = found["account"] if found else base.rpartition("/")[2]
        return cls(account or named.lower(), given.origin._replace(host=host), base)

    @property
    def url(self) -> str:
        """As `of` accepts it."""
        return Address(self.origin, self.base or "/").url.rstrip("/")

    def address(self, container: str, blob: str, query: str) -> Address:
        """The URL of a blob, or of the container if `blob` is empty. Names are used as they are, and quoted.

        >>> Endpoint.of("myaccount", None).address("data", "a b/+1", "").shown
        'https://myaccount.blob.core.windows.net/data/a%20b/%2B1'
        """
        path = f"{self.base}/{container}" + (f"/{quoted(blob, '/-_.~')}" if blob else "")
        return Address(self.origin, f"{path}?{query}" if query else path)


def check_account(account: str) -> None:
    """ConfigInvalidError for an invalid name of an account, which would become part of a host name."""
    if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
        raise ConfigInvalidError(
            f"{account!r} is not the name of a storage account (3 to 24 lower case letters and digits)"
        )


def check_container(container: str) -> None:
    """ConfigInvalidError for an invalid name of a container."""
    if not _CONTAINER.fullmatch(container):
        raise ConfigInvalidError(
            f"{container!r} is not the name of a container; in az://container/blob it must be 3 to 63 lower case"
            " letters, digits and single dashes"
        )


def parse_rest(rest: str) -> tuple[dict[str, str], str]:
    """The options and the path in a URI after its scheme: ``container/blob``, or ``container@host/blob`` with the host
    of an account in one of Microsoft's clouds: the credentials of the machine are sent there, so a URI cannot name any
    other host.
    """
    place, _, path = rest.partition("/")
    container, at, host = place.partition("@")
    if not at:
        return ({"container": container} if container else {}), path
    found = _OF_AZURE.fullmatch(host)
    if found is None:
        raise ConfigInvalidError(
            f"{host!r} is not the host of a storage account; the URI must be like"
            f" abfss://container@account.dfs.{SUFFIX}/path"
        )
    if not _CLOUDS.fullmatch(found["rest"]):
        raise ConfigInvalidError(
            f"{host!r} is not in one of Microsoft's clouds, and credentials would be sent there: name it by"
            " endpoint_url=, with a URI like az://container/path"
        )
    options = {"container": container, "account": found["account"].lower()}
    if not re.fullmatch(rf"(?:blob|dfs)\.{re.escape(SUFFIX)}", found["rest"], re.IGNORECASE):
        options["endpoint_url"] = f"https://{host.lower()}"
    return options, path
