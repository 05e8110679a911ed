"""Signatures against those that AWS has published, and against botocore's for whatever else keys and queries hold."""

from datetime import datetime, timezone
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from faults.machine import need_module
from hypothesis import given, settings
from hypothesis import strategies as st

from rangeio.s3.signing import Keys, Signer

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def seconds(text: str) -> float:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


# --- the suite for all services: https://github.com/awslabs/aws-c-auth, tests/aws-signing-test-suite/v4 ------

SUITE_TIME = "20150830T123600Z"
SUITE_HOST = "example.amazonaws.com"
TOKEN = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# name: (target, further fields, session token, signature in a field, signature in the query).
# Those that hold of S3: it neither normalises a path nor quotes it twice.
SUITE: dict[str, tuple[str, dict[str, str], str | None, str, str]] = {
    "get-vanilla": (
        "/", {}, None,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    "get-header-key-duplicate": (
        "/", {"My-Header1": "value2,value2,value1"}, None,
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        "3349ee0b81b4b589da0ff28a395c3591e04de515651dd74f298fa992d1507a97",
    ),
    "get-header-value-trim": (
        "/", {"My-Header1": " value1", "My-Header2": ' "a   b   c"'}, None,
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        "e7bb0fd515e125e1aec2ecc4c0c17484fb06f6846b927c35e46005dd3df3acd4",
    ),
    "get-header-value-order": (
        "/", {"My-Header1": "value4,value1,value3,value2"}, None,
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        "313720e71ca6202fdcfa9b20f88de01a4eb0638a83c833b1c184359a4eda864e",
    ),
    "get-unreserved": (
        f"/{UNRESERVED}", {}, None,
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        "95968482db1b9e0fadef6efc1bd24689f77c77d9ef56919c96a28cc92e0d6005",
    ),
    "get-utf8": (
        quote("/\u1234"), {}, None,
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        "10eae3f14a260bd3911cc6d008d3c576d143b05b62f09782a7a4b37f52178e44",
    ),
    "get-space-unnormalized": (
        "/example%20space/", {}, None,
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        "7a1f416954786484c9824d93c1f26ef64acb9b1b6c9154d08c9f07d0e394abf6",
    ),
    "get-slashes-unnormalized": (
        "//example//", {}, None,
        "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
        "822a5a9ba28072c5ab2bb4a6307d0c88276d40e49fec6b724c03fb4d4ba60fc2",
    ),
    "get-relative-unnormalized": (
        "/example/..", {}, None,
        "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
        "cbcb213b928a077e43275df47b500f1dfaa864ab3f5a18f6b95f4ff0938167ee",
    ),
    "get-vanilla-query-order-key-case": (
        "/?Param2=value2&Param1=value1", {}, None,
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        "86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5",
    ),
    "get-vanilla-query-order-encoded": (
        "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", {}, None,
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        "c5f1848ceec943ac2ca68ee720460c23aaae30a2300586597ada94c4a65e4787",
    ),
    "get-vanilla-query-unreserved": (
        f"/?{UNRESERVED}={UNRESERVED}", {}, None,
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        "8e76a88a7433637b12778d5592799b29ad21ecd6cf6325051c21d86f0acda2bf",
    ),
    "get-vanilla-empty-query-key": (
        "/?Param1=value1", {}, None,
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        "49096700cbbaa5753443850f40df10f904fc2fdb544dc9512203cc77c471a9de",
    ),
    "get-vanilla-utf8-query": (
        f"/?{quote(chr(0x1234))}=bar", {}, None,
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        "0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600",
    ),
    "get-vanilla-with-session-token": (
        "/", {}, TOKEN,
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c",
    ),
}  # fmt: skip


def suite_signer(token: str | None) -> Signer:
    keys = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    return Signer(keys, "us-east-1", "service")


@pytest.mark.parametrize("name", SUITE)
def test_published_signature_in_a_field(name: str) -> None:
    target, more, token, signature, _ = SUITE[name]
    fields = {"Host": SUITE_HOST, "X-Amz-Date": SUITE_TIME, **more}
    if token:
        fields["X-Amz-Security-Token"] = token
    found = suite_signer(token).authorization("GET", target, fields, seconds(SUITE_TIME), EMPTY)
    assert found == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
        + ";".join(sorted(field.lower() for field in fields))
        + f", Signature={signature}"
    )


@pytest.mark.parametrize("name", SUITE)
def test_published_signature_in_the_query(name: str) -> None:
    target, more, token, _, signature = SUITE[name]
    signer = suite_signer(token)
    found = signer.presigned("GET", SUITE_HOST, target, seconds(SUITE_TIME), 3600, more, EMPTY)
    assert found.endswith(f"&X-Amz-Signature={signature}")
    assert "X-Amz-Expires=3600" in found


# --- S3's own examples: Amazon S3 API Reference, "Signature Calculations for the Authorization Header" -------

S3_TIME = "20130524T000000Z"
S3_HOST = "examplebucket.s3.amazonaws.com"
EXAMPLES = {
    "GET object with a range": (
        "/test.txt",
        {"Range": "bytes=0-9"},
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "GET bucket lifecycle": (
        "/?lifecycle",
        {},
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "GET bucket (list objects)": (
        "/?max-keys=2&prefix=J",
        {},
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


def s3_signer() -> Signer:
    return Signer(Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_s3(name: str) -> None:
    target, more, signature = EXAMPLES[name]
    fields = s3_signer().fields("GET", S3_HOST, target, seconds(S3_TIME), more)
    assert fields["Authorization"].endswith(f"Signature={signature}")
    assert fields["x-amz-content-sha256"] == EMPTY
    assert fields["x-amz-date"] == S3_TIME


def test_presigned_example_of_s3() -> None:
    """Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters"."""
    found = s3_signer().presigned("GET", S3_HOST, "/test.txt", seconds(S3_TIME), 86_400)
    assert found == (
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


# --- botocore -----------------------------------------------------------------------------------------------


def of_botocore(keys: Keys, host: str, path: str, terms: dict[str, str], when: float) -> dict[str, str]:
    """The header fields that botocore signs a GET with."""
    auth = need_module("botocore.auth")
    credentials = need_module("botocore.credentials").Credentials(
        keys.access_key_id, keys.secret_access_key, keys.session_token
    )
    request: Any = need_module("botocore.awsrequest").AWSRequest("GET", f"https://{host}{path}", params=terms)
    now = datetime.fromtimestamp(when, timezone.utc)
    request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    with mock.patch.object(auth, "get_current_datetime", return_value=now):
        auth.S3SigV4Auth(credentials, "s3", "eu-west-3").add_auth(request)
    return dict(request.headers)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\t\0"), max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    key=TEXT, prefix=TEXT, token=st.none() | st.just("a/session+token=="), when=st.integers(10**9, 2 * 10**9)
)
def test_as_botocore_signs(key: str, prefix: str, token: str | None, when: int) -> None:
    """For any key and query; the fields that both sign, and the signature over them."""
    keys = Keys("AKID", "secret/+", token)
    path = "/" + quote(key, safe="/-_.~")
    theirs = of_botocore(keys, "data.s3.eu-west-3.amazonaws.com", path, {"prefix": prefix, "a b": "1"}, when)
    target = f"{path}?prefix={quote(prefix, safe='-_.~')}&a%20b=1"
    stamp = seconds(theirs["X-Amz-Date"])
    ours = Signer(keys, "eu-west-3").fields("GET", "data.s3.eu-west-3.amazonaws.com", target, stamp)
    assert ours["Authorization"] == theirs["Authorization"]


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(Keys("AKID-secret", "secret", "secret-token"))


def test_the_key_of_the_day() -> None:
    """A Signer that lives past midnight signs as a new one does."""
    old = suite_signer(None)
    for day in ("20150830T235959Z", "20150831T000000Z", "20150830T235959Z"):
        assert old.fields("GET", "h", "/", seconds(day)) == suite_signer(None).fields(
            "GET", "h", "/", seconds(day)
        )
