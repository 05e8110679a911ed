"""Settings from the environment and the files of the AWS command line: region, endpoint, keys.

White space around a value is removed: a value from a shell, a file or a Kubernetes secret often ends in a line break.
The code that uses a value checks it: `Keys`, `check_region`, `parse_url`.
"""

import os
from collections.abc import Mapping
from configparser import Error as BadFile
from configparser import RawConfigParser
from functools import cached_property
from pathlib import Path

from rangeio.errors import ConfigInvalidError
from rangeio.s3.signing import Keys

# Settings of profiles whose keys come from elsewhere; only botocore supports these.
_FOLLOWED_BY_BOTOCORE = ("role_arn", "sso_session", "sso_start_url", "credential_process", "login_session")


class Settings:
    """One profile from the environment and the two files. A file is read when a value from it is needed, so that an
    unreadable file is not an error otherwise. The repr shows no values.

    profile: replaces AWS_PROFILE; AWS_ACCESS_KEY_ID and related variables are then ignored. credentials_file: replaces
    AWS_SHARED_CREDENTIALS_FILE. Source: AWS SDKs and Tools
    Reference Guide, "Shared config and credentials files".
    """

    def __init__(
        self,
        profile: str | None = None,
        credentials_file: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._environ = environ
        self._chosen = profile
        self._credentials_file = credentials_file
        self.profile = profile or self._env("AWS_PROFILE", "AWS_DEFAULT_PROFILE") or "default"

    @cached_property
    def _config(self) -> dict[str, str]:
        return _section(self._file("AWS_CONFIG_FILE", "config"), {self.profile, f"profile {self.profile}"})

    @cached_property
    def _services(self) -> dict[str, str]:
        named = self._config.get("services", "")
        return _section(self._file("AWS_CONFIG_FILE", "config"), {f"services {named}"}) if named else {}

    def region(self) -> str | None:
        """AWS_REGION, AWS_DEFAULT_REGION, or the region of the profile."""
        return self._env("AWS_REGION", "AWS_DEFAULT_REGION") or self._config.get("region")

    def endpoint_url(self) -> str | None:
        """AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or the endpoint of the profile for S3 or for all services."""
        if self._is_true(
            self._env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
            or self._config.get("ignore_configured_endpoint_urls")
        ):
            return None
        found = self._env("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        found = found or _nested(self._services.get("s3", "")).get("endpoint_url")
        return found or self._config.get("endpoint_url")

    def addressing(self) -> str | None:
        """`addressing_style` of the profile's `s3` settings."""
        return _nested(self._config.get("s3", "")).get("addressing_style")

    def ca_file(self) -> str | None:
        """AWS_CA_BUNDLE, or `ca_bundle` of the profile."""
        return self._env("AWS_CA_BUNDLE") or self._config.get("ca_bundle")

    def dualstack(self) -> bool:
        """AWS_USE_DUALSTACK_ENDPOINT, or the setting of the profile."""
        return self._is_true(
            self._env("AWS_USE_DUALSTACK_ENDPOINT") or self._config.get("use_dualstack_endpoint")
        )

    def keys_of_environment(self) -> Keys | None:
        """AWS_ACCESS_KEY_ID and related variables, unless a profile was given."""
        if self._chosen is not None:
            return None
        return _keys(
            "the environment (AWS_ACCESS_KEY_ID and related variables)",
            self._env("AWS_ACCESS_KEY_ID"),
            self._env("AWS_SECRET_ACCESS_KEY"),
            self._env("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
        )

    def keys_of_files(self) -> Keys | None:
        """The keys of the profile in the credentials file, which each call reads again, or in the config file.

        ConfigInvalidError if the profile gets its keys in a way that requires botocore.
        """
        shared = _section(self._file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), {self.profile})
        for in_config in (False, True):
            section = self._config if in_config else shared
            found = _keys(
                f"the profile {self.profile!r}",
                section.get("aws_access_key_id"),
                section.get("aws_secret_access_key"),
                section.get("aws_session_token"),
            )
            if found is not None:
                return found
        wanted = [name for name in _FOLLOWED_BY_BOTOCORE if name in shared or name in self._config]
        if wanted:
            raise ConfigInvalidError(
                f"the profile {self.profile!r} gets its keys by {wanted[0]}; "
                + ("set profile= only" if self._credentials_file else "pip install botocore to follow it")
            )
        return None

    def _env(self, *names: str) -> str | None:
        values = (self._environ.get(name, "").strip() for name in names)
        return next(filter(None, values), None)

    def _file(self, variable: str, name: str) -> Path:
        given = self._environ.get(variable)
        if name == "credentials":
            given = self._credentials_file or given
        return Path(given or Path("~/.aws") / name).expanduser()

    @staticmethod
    def _is_true(text: str | None) -> bool:
        return (text or "").lower() == "true"


def _keys(
    source: str, access_key_id: str | None, secret_access_key: str | None, session_token: str | None
) -> Keys | None:
    """source: where the keys come from, for an error."""
    if not access_key_id or not secret_access_key:
        return None
    try:
        return Keys(access_key_id, secret_access_key, session_token or None)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(f"the keys of {source}: {error}") from None


def _section(file: Path, names: set[str]) -> dict[str, str]:
    """The settings of the sections with these names; empty if there is no such file or section."""
    parser = RawConfigParser(default_section="", strict=False)  # accepts "=" and ":", like botocore
    try:
        parser.read_string(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (BadFile, UnicodeDecodeError):  # their messages quote the file, which may hold secrets
        raise ConfigInvalidError(f"{str(file)!r} cannot be read as an AWS settings file") from None
    found: dict[str, str] = {}
    for name in parser.sections():
        if " ".join(part.strip("\"'") for part in name.split(maxsplit=1)) in names:
            found.update(parser.items(name))
    return found


def _nested(text: str) -> dict[str, str]:
    """The nested settings in indented lines below a setting."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
