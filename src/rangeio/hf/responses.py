"""Refusals of the hub, and the exceptions for them. Source: huggingface_hub, utils/_http.py."""

import re
from collections.abc import Iterable, Mapping

from rangeio.errors import Error, NotFoundError, PermissionDeniedError
from rangeio.http import refusals
from rangeio.http.refusals import Meanings, Refused

MISSING = "EntryNotFound"
"""The code for a file or folder that the revision does not have."""
_MEANINGS: Meanings = {
    MISSING: (NotFoundError, "the file does not exist at this revision"),
    "RevisionNotFound": (NotFoundError, "the revision does not exist"),
    "RepoNotFound": (NotFoundError, "the repository does not exist, or the token may not read it"),
    "GatedRepo": (PermissionDeniedError, "the repository is gated: request access on its page"),
    "DisabledRepo": (PermissionDeniedError, "the repository is disabled"),
}
_WITHOUT_TOKEN: Meanings = {
    "RepoNotFound": (
        NotFoundError,
        "the repository does not exist, or it is private; no token was sent: set bearer_token= or HF_TOKEN",
    ),
    "GatedRepo": (
        PermissionDeniedError,
        "the repository is gated: request access on its page, and set bearer_token= or HF_TOKEN",
    ),
}
_RESET = re.compile(r"\bt=(\d{1,6})\b")


def explained(fields: Mapping[str, str], general: Error, *, token: bool, secrets: Iterable[str]) -> Error:
    """The error for a refusal: its class follows X-Error-Code; otherwise it is `general`, the error of the status, with
    the message of the hub.

    token: one was sent. secrets: what the message must not show, even if the hub quotes it.
    """
    status = general.http_status or 0
    refused = Refused(fields.get("x-error-code", ""), fields.get("x-error-message", ""))
    meanings = dict(_MEANINGS) if token else {**_MEANINGS, **_WITHOUT_TOKEN}
    if status == 401:
        said = "the token is not accepted" if token else "a token is required: set bearer_token= or HF_TOKEN"
        meanings.setdefault(refused.code, (type(general), said))
    return refusals.explained(refused, status, general, meanings, secrets)


def reset_s(fields: Mapping[str, str]) -> str | None:
    """The seconds until requests are allowed again, as the hub says in RateLimit: ``"api";r=0;t=55``. Source: IETF
    draft-ietf-httpapi-ratelimit-headers.
    """
    match = _RESET.search(fields.get("ratelimit", ""))
    return None if match is None else match[1]
