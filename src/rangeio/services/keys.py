"""Where the objects of a service are: in one bucket, by key, or in all buckets, as ``bucket/key``."""

from collections.abc import Callable

from rangeio.errors import ConfigInvalidError, UnexpectedError


class Keys:
    """Translates the paths of one service to buckets and keys, and back.

    bucket: the only bucket; None if paths begin with one. root: all keys are below it. check: raises ConfigInvalidError
    for an invalid name of a bucket. Keys are used as they are: "%20" is three characters, and ``..`` a name.
    """

    def __init__(self, bucket: str | None, root: str, check: Callable[[str], object], word: str) -> None:
        if bucket is not None:
            check(bucket)
        self.bucket, self.root = bucket, f"{root.strip('/')}/" if root.strip("/") else ""
        self._check = check
        self._word = word

    def place(self, path: str) -> tuple[str, str]:
        """The bucket and the key, or prefix of keys, of a path."""
        if self.bucket is not None:
            return self.bucket, self.root + path
        bucket, _, key = path.partition("/")
        self._check(bucket)
        return bucket, self.root + key

    def object(self, path: str) -> tuple[str, str]:
        """The bucket and the key of an object. ConfigInvalidError if the path has no key."""
        bucket, key = self.place(path)
        if not key:
            raise ConfigInvalidError(f"the path names a {self._word}, not an object in it", path=path)
        return bucket, key

    def path(self, bucket: str, key: str) -> str:
        """The path of a key in a listing; empty for the root itself. UnexpectedError if it is not below the root."""
        if not key.startswith(self.root):
            raise UnexpectedError("the server lists keys that are not below the root")
        path = key[len(self.root) :]
        return f"{bucket}/{path}" if path and self.bucket is None else path
