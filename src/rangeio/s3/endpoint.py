"""The address of a bucket: its host, and whether its name is part of the host or of the path."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rangeio.errors import ConfigInvalidError
from rangeio.http.urls import Address, Origin, parse_url, quoted

Addressing = Literal["auto", "path", "virtual"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_AS_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Not all of amazonaws.com: customers of Amazon run servers there too, for instance behind load balancers.
_OF_S3 = re.compile(r"(.+\.)?s3([.-](dualstack\.)?[a-z0-9-]+)?\.amazonaws\.(com(\.cn)?|eu)")
# China and the European Sovereign Cloud have their own domains; regions of closed networks need endpoint_url.
# Source: botocore 1.44, partitions.json.
_DOMAINS = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One S3 service. url: of a service other than Amazon's, None for Amazon's.

    addressing: ``"virtual"`` puts the bucket into the host name, ``"path"`` into the path; ``"auto"`` is virtual with
    Amazon if the bucket's name allows it, otherwise path. dualstack: use Amazon's hosts with IPv6 addresses.
    """

    url: str | None = None
    addressing: Addressing = "auto"
    dualstack: bool = False

    def __post_init__(self) -> None:
        if self.addressing not in ("auto", "path", "virtual"):
            raise ConfigInvalidError(
                f"addressing must be 'path', 'virtual' or 'auto', not {self.addressing!r}"
            )
        if self.url is not None and ("?" in (place := parse_url(self.url)).target or place.login):
            raise ConfigInvalidError("endpoint_url must be a URL without login and query")

    def address(self, bucket: str, key: str, region: str, query: str = "") -> Address:
        """The URL of an object, or of the bucket if `key` is empty. Keys are used as they are, and quoted.

        >>> Endpoint().address("data", "a b/+1", "eu-west-1").shown
        'https://data.s3.eu-west-1.amazonaws.com/a%20b/%2B1'
        """
        origin, base, virtual = _of_bucket(self, bucket, region)
        path = f"{base}/{quoted(key, '/-_.~')}" if key or virtual else base
        return Address(origin, f"{path}?{query}" if query else path)

    def may_sign_for(self, sent_to: Origin, target: Origin) -> bool:
        """Whether a redirect from one host to another stays within Amazon S3 and uses TLS."""
        if self.url is not None or target.scheme != "https":
            return False
        return all(_OF_S3.fullmatch(origin.host) for origin in (sent_to, target))

    def _place(self, region: str) -> tuple[Origin, str]:
        if self.url is not None:
            given = parse_url(self.url)
            return given.origin, given.target.rstrip("/")
        check_region(region)
        domain = _DOMAINS.get(region.partition("-")[0], "amazonaws.com")
        host = f"s3.dualstack.{region}" if self.dualstack else f"s3.{region}"
        return Origin("https", f"{host}.{domain}", 443), ""

    def _is_virtual(self, bucket: str, origin: Origin) -> bool:
        if self.addressing != "auto":
            return self.addressing == "virtual"
        # A certificate for *.s3.amazonaws.com does not cover a name with dots.
        return self.url is None and _AS_HOST.fullmatch(bucket) is not None


@lru_cache(maxsize=64)  # one of a bucket for all of its objects
def _of_bucket(endpoint: Endpoint, bucket: str, region: str) -> tuple[Origin, str, bool]:
    """The server of a bucket, the path of the bucket there, and whether its name is in that of the server."""
    check_bucket(bucket)
    origin, base = endpoint._place(region)
    if endpoint._is_virtual(bucket, origin):
        return Origin(origin.scheme, f"{bucket}.{origin.host}", origin.port), base, True
    return origin, f"{base}/{bucket}", False


def check_bucket(bucket: str) -> None:
    """ConfigInvalidError for an invalid bucket name."""
    if not _BUCKET.fullmatch(bucket):
        raise ConfigInvalidError(
            f"{bucket!r} is not a bucket name; in s3://bucket/key it must be two or more letters, digits, dots,"
            " dashes and underscores"
        )


def check_region(region: str) -> None:
    """ConfigInvalidError for an invalid region name, which could change the host name."""
    if not _REGION.fullmatch(region):
        raise ConfigInvalidError(f"{region!r} is not a region name")
