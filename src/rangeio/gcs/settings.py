"""Where the credentials of this machine are: the environment, and the file of the gcloud command.

White space around a value is removed: a value from a shell or a Kubernetes secret often ends in a line break.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rangeio.errors import ConfigInvalidError

_OF_GCLOUD = "application_default_credentials.json"
Named = tuple[Mapping[str, Any], str]
"""The content of a credentials file, and its place for a message."""


def found_credentials(environ: Mapping[str, str] = os.environ) -> Named | None:
    """The first of: the file that GOOGLE_APPLICATION_CREDENTIALS names; GOOGLE_SERVICE_ACCOUNT_KEY, the content itself;
    the file that GOOGLE_SERVICE_ACCOUNT or GOOGLE_SERVICE_ACCOUNT_PATH names; that of the gcloud command.

    ConfigInvalidError if it cannot be read.
    """

    def value(name: str) -> str:
        return environ.get(name, "").strip()

    if path := value("GOOGLE_APPLICATION_CREDENTIALS"):
        return credentials_file(path)
    if text := value("GOOGLE_SERVICE_ACCOUNT_KEY"):
        return parsed(text, "GOOGLE_SERVICE_ACCOUNT_KEY"), "GOOGLE_SERVICE_ACCOUNT_KEY"
    if path := value("GOOGLE_SERVICE_ACCOUNT") or value("GOOGLE_SERVICE_ACCOUNT_PATH"):
        return credentials_file(path)
    folder = Path(value("CLOUDSDK_CONFIG") or "~/.config/gcloud").expanduser()
    return credentials_file(folder / _OF_GCLOUD) if (folder / _OF_GCLOUD).is_file() else None


def credentials_file(path: str | Path) -> Named:
    """Read a credentials file. ConfigInvalidError if that fails; it shows no content."""
    if str(path).lstrip().startswith("{"):
        raise ConfigInvalidError(
            "the path of a credentials file is the content of one: GOOGLE_SERVICE_ACCOUNT_KEY, or service_account= as a"
            " mapping, takes the content"
        )
    shown = repr(str(path))
    try:
        text = Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalidError(
            f"the credentials file {shown} cannot be read: {type(error).__name__}"
        ) from None
    return parsed(text, f"the credentials file {shown}"), shown


def parsed(text: str, what: str) -> Mapping[str, Any]:
    """The object in a JSON text. ConfigInvalidError unless it is one; it shows no content."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigInvalidError(f"{what} is not JSON with credentials")
    return found
