"""The keys for signatures: given ones, those of a callable, or those of the machine, found like the AWS tools do."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from rangeio.errors import ConfigInvalidError, UnauthenticatedError
from rangeio.http.credentials_call import called
from rangeio.http.remote_object import Credentials
from rangeio.http.tokens import expiry_of
from rangeio.s3.settings import Settings
from rangeio.s3.signing import Keys

Given: TypeAlias = Mapping[str, Any]
"""Return value of a credentials callable: access_key_id, secret_access_key, and optionally session_token and
expires_at."""

_NAMES = {"access_key_id", "secret_access_key", "session_token", "token", "expires_at"}


class KeyRing(Credentials):
    """The current keys; None for unsigned requests. Gets keys at the first request, before they expire and when a
    server rejects them.
    """

    def __init__(self, keys: Keys | None, source: Callable[[], Keys] | None = None) -> None:
        """source: returns new keys; may block; called once for all waiting reads."""
        super().__init__({}, source)
        self.keys = keys
        self._keys_before: Keys | None = None

    def accept(self, given: Any) -> float:
        """See `Credentials`."""
        self.keys, self._keys_before = given, self.keys
        expiry: float = given.expiry
        return expiry

    @property
    def signs(self) -> bool:
        """Whether requests are signed: there are keys, or a source of keys."""
        return self.keys is not None or self.renewable

    def secrets(self) -> Iterator[str]:
        """See `Credentials`."""
        for keys in (self.keys, self._keys_before):
            if keys is not None:
                yield from (keys.access_key_id, keys.secret_access_key, keys.session_token or "")


def checked_keys(given: Any) -> Keys:
    """Keys from a mapping. ConfigInvalidError if it is not a mapping or incomplete; the error shows no value.

    expires_at: a datetime with a time zone, or seconds since 1970.
    """
    if isinstance(given, Keys):
        return given
    if not isinstance(given, Mapping):
        raise ConfigInvalidError(
            "credentials() must return a mapping with access_key_id and secret_access_key,"
            f" not {type(given).__name__}"
        )
    unknown = sorted(set(map(str, given)) - _NAMES)
    if unknown:
        raise ConfigInvalidError(
            f"credentials() returned unknown {unknown[0]!r}; known: {', '.join(sorted(_NAMES))}"
        )
    return Keys(
        given.get("access_key_id"),  # type: ignore[arg-type]  # Keys checks them
        given.get("secret_access_key"),  # type: ignore[arg-type]
        given.get("session_token") or given.get("token"),
        expiry_of(given.get("expires_at")),
    )


def of_machine(profile: str | None, file: str | None = None) -> Callable[[], Keys]:
    """A function that finds keys like the AWS tools; see `found_keys`."""
    refreshing: list[Any] = []  # botocore's credentials object, if it refreshes keys itself
    return lambda: found_keys(profile, file, refreshing)[0]


def found_keys(profile: str | None, file: str | None, refreshing: list[Any]) -> tuple[Keys, str]:
    """The keys of the machine, and where they were found: the environment, then botocore's chain if it is installed,
    then the files. UnauthenticatedError if there are none.

    botocore also supports roles, single sign-on, processes, containers and instances. refreshing: its credentials
    object of the last call, if that refreshes keys itself. file: the credentials file in which alone to look.
    """
    settings = Settings(profile, file)
    if file is not None:
        if (found := settings.keys_of_files()) is None:
            raise UnauthenticatedError(
                f"credentials_file={file!r} has no keys for the profile {settings.profile!r}"
            )
        return found, f"the profile {settings.profile!r} in credentials_file="
    if (found := settings.keys_of_environment()) is not None:
        return found, "AWS_ACCESS_KEY_ID and related variables"
    if (chain := _of_botocore(profile, refreshing)) is not None:
        return chain
    if (found := settings.keys_of_files()) is not None:
        return found, f"the profile {settings.profile!r} in the shared files"
    raise UnauthenticatedError(
        "no AWS credentials: neither AWS_ACCESS_KEY_ID nor the profile"
        f" {settings.profile!r} has any; set access_key_id= and secret_access_key=, or anonymous=True for"
        " public objects"
    )


def _of_botocore(profile: str | None, refreshing: list[Any]) -> tuple[Keys, str] | None:
    """The keys that botocore finds, and where; None if it is not installed or finds none."""
    try:
        from botocore.session import Session
    except ImportError:
        return None
    held = refreshing[0] if refreshing else Session(profile=profile).get_credentials()
    if held is None:
        return None
    keys = keys_of_botocore(held)
    refreshing[:] = (
        [] if keys.expiry == float("inf") else [held]
    )  # keys from a file are read again by each call
    return keys, f"botocore ({getattr(held, 'method', 'unknown')})"


def is_of_botocore(given: object) -> bool:
    """Whether it is a credentials object of botocore or aiobotocore, or one that behaves like it."""
    return hasattr(given, "get_frozen_credentials")


def keys_of_botocore(held: Any) -> Keys:
    """The keys of such an object, which gets new ones if they are about to expire."""
    frozen = called(held.get_frozen_credentials)
    expiry = getattr(held, "_expiry_time", None)
    seconds = float("inf") if expiry is None else expiry.timestamp()
    try:
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or None, seconds)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(f"the keys from botocore: {error}") from None
