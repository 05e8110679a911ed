"""The address of a bucket and its objects, and whom a token may be sent to."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rangeio.errors import ConfigInvalidError
from rangeio.http.urls import Address, Origin, parse_url, quoted

_GOOGLE = "https://storage.googleapis.com"
# Google's names have 3 characters or more, emulators also take capital letters.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_PLAIN = "-_.~"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Cloud Storage. emulator: STORAGE_EMULATOR_HOST named it, so that no credentials are wanted."""

    origin: Origin
    path: str
    emulator: bool = False

    def object(self, bucket: str, key: str, query: str = "") -> Address:
        """The URL of an object in the XML API, or of the bucket if `key` is empty. Keys are used as they are, quoted.

        >>> endpoint_of(None, {}).object("data", "a b/+1").shown
        'https://storage.googleapis.com/data/a%20b/%2B1'
        """
        check_bucket(bucket)
        return self._address(f"/{bucket}" + ("/" + quoted(key, "/" + _PLAIN) if key else ""), query)

    def listing(self, bucket: str, query: str) -> Address:
        """The URL of a listing in the JSON API."""
        check_bucket(bucket)
        return self._address(f"/storage/v1/b/{bucket}/o", query)

    def _address(self, path: str, query: str) -> Address:
        return Address(self.origin, self.path + path + (f"?{query}" if query else ""))

    @property
    def shown(self) -> str:
        """For display."""
        return f"{self.origin.scheme}://{self.origin.authority}{self.path}"


def endpoint_of(url: str | None, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The given one, else that of the environment: GOOGLE_BASE_URL, STORAGE_EMULATOR_HOST (with or without a scheme);
    else Google's.
    """
    emulator = False
    if url is None:
        url = environ.get("GOOGLE_BASE_URL", "").strip() or None
    if url is None and (host := environ.get("STORAGE_EMULATOR_HOST", "").strip()):
        url, emulator = host if "://" in host else f"http://{host}", True
    place = parse_url(url or _GOOGLE)
    if "?" in place.target or place.login:
        raise ConfigInvalidError("endpoint_url must be a URL without login and query")
    return Endpoint(place.origin, place.target.rstrip("/"), emulator)


def check_bucket(bucket: str) -> None:
    """ConfigInvalidError for an invalid bucket name."""
    if not _BUCKET.fullmatch(bucket):
        raise ConfigInvalidError(
            f"{bucket!r} is not a bucket name; in gs://bucket/key it must be letters, digits, dots, dashes and"
            " underscores"
        )
