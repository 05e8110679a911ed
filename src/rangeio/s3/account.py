"""State shared by the objects of one service: endpoint, keys, and what servers reported about regions and time."""

import time
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.http.heads import Head
from rangeio.http.redaction import secrets_of_fields
from rangeio.http.refusals import Refused
from rangeio.http.urls import Address
from rangeio.http.validation import http_date
from rangeio.s3.credentials import KeyRing
from rangeio.s3.endpoint import Endpoint, check_region
from rangeio.s3.responses import WRONG_REGION
from rangeio.s3.signing import Signer

DEFAULT_REGION = "us-east-1"
# A signature is reused for this long; servers accept it for 15 minutes in both directions.
_SAME_FOR_S = 60.0
# Less than the clock difference that servers refuse (S3: 15 minutes), more than the duration of a request.
_FAR_OFF_S = 240.0


class Account:
    """Makes addresses and signatures. Thread-safe.

    region: the default for buckets whose region no server has reported. extra: header fields of every request; those
    named x-amz- are signed, as S3 requires.
    """

    def __init__(
        self, endpoint: Endpoint, ring: KeyRing, region: str | None, extra: Mapping[str, str]
    ) -> None:
        self.endpoint, self.ring = endpoint, ring
        self._region = region or DEFAULT_REGION
        check_region(self._region)
        self._regions: dict[str, str] = {}
        self._extra = dict(extra)
        if ring.signs:
            _check_extra(extra)
        self._signed_extra = {
            name: value for name, value in extra.items() if name.lower().startswith("x-amz-")
        }
        self._unsigned_extra = {
            name: value for name, value in extra.items() if name not in self._signed_extra
        }
        self._signers: dict[tuple[int, str], Signer] = {}
        self.skew_s = 0.0  # how far the servers' clock is ahead of ours

    def region(self, bucket: str) -> str:
        """The known region of a bucket."""
        return self._regions.get(bucket, self._region)

    def address(self, bucket: str, key: str, query: str = "") -> Address:
        """The address of an object in the known region of its bucket."""
        return self.endpoint.address(bucket, key, self.region(bucket), query)

    def stamp(self, bucket: str) -> tuple[object, ...]:
        """The state that a signature depends on besides the request; a signature with the same stamp may be reused."""
        return self.ring.version, self.region(bucket), int(self._now() // _SAME_FOR_S), self.skew_s

    def fields(self, bucket: str, method: str, sent_to: Address) -> dict[str, str]:
        """The header fields of the signature, and those of the caller."""
        signer = self._signer(bucket)
        signed = self._signed_extra
        if signer is not None:
            signed = signer.fields(method, sent_to.origin.authority, sent_to.target, self._now(), signed)
        return {**self._unsigned_extra, **signed}

    def presigned(self, bucket: str, method: str, address: Address, expires_s: int) -> str:
        """A URL that needs no keys; without keys the plain URL."""
        signer, origin = self._signer(bucket), address.origin
        if signer is None:
            return address.url
        target = _with_terms(address.target, self._for_presigned())
        target = signer.presigned(method, origin.authority, target, self._now(), expires_s)
        return Address(origin, target).url

    def _for_presigned(self) -> dict[str, str]:
        """The header fields that a presigned URL contains. UnsupportedError for a field that it cannot contain, because
        the user of the URL would have to send it. Source: Amazon S3 User Guide, "Requester Pays" and "SSE-C".
        """
        terms = {}
        for name, value in self._signed_extra.items():
            lowered = name.lower()
            if lowered.startswith("x-amz-server-side-encryption-customer-"):
                raise UnsupportedError(
                    f"a presigned URL cannot contain {lowered}, which is required to read the object"
                )
            if lowered == "x-amz-request-payer":
                terms[lowered] = value
        return terms

    def secrets(self) -> Iterator[str]:
        """Secrets that no message may show."""
        yield from self.ring.secrets()
        yield from secrets_of_fields(self._extra)

    def _signer(self, bucket: str) -> Signer | None:
        keys, region = self.ring.keys, self.region(bucket)
        if keys is None:
            return None
        found = self._signers.get((self.ring.version, region))
        if found is None or found.keys is not keys:
            found = Signer(keys, region)
            self._signers = {key: old for key, old in self._signers.items() if key[0] == self.ring.version}
            self._signers[self.ring.version, region] = found
        return found

    def _now(self) -> float:
        return time.time() + self.skew_s

    def learn(self, bucket: str, head: Head, refused: Refused) -> bool:
        """Use what a refusal reports about the bucket's region or the time. Returns whether a new request may help."""
        if head.status not in (301, 307, 400, 401, 403):
            return False
        return self._learn_region(bucket, head, refused) or self._learn_time(head)

    def _learn_region(self, bucket: str, head: Head, refused: Refused) -> bool:
        told = head.fields.get("x-amz-bucket-region", "")
        if not told and refused.code in WRONG_REGION:
            told = refused.region
        if not told or (told == self.region(bucket) and refused.code not in WRONG_REGION):
            return False
        try:
            check_region(told)
        except ConfigInvalidError:
            return False  # it would become part of a host name
        self._regions[bucket] = told
        return True

    def _learn_time(self, head: Head) -> bool:
        """Use the server's clock for signatures if ours differs a lot. Not all servers report this as the reason."""
        told = http_date(head.fields.get("date", ""))
        if told is None or abs(told - self._now()) < _FAR_OFF_S:
            return False
        self.skew_s = told - time.time()
        return True


_OF_A_SIGNATURE = frozenset(["authorization", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"])


def _check_extra(extra: Mapping[str, str]) -> None:
    """ConfigInvalidError for a field of the signature, which would be sent twice."""
    for name in extra:
        if name.lower() in _OF_A_SIGNATURE:
            raise ConfigInvalidError(
                f"the header field {name!r} is part of the signature; set anonymous=True to send your own"
            )


def _with_terms(target: str, terms: Mapping[str, str]) -> str:
    added = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in terms.items())
    return target + ("&" if "?" in target else "?") * bool(added) + added
