"""More file systems of objects: Google's, Azure's, of a Hadoop cluster, of the Hugging Face hub, of this process."""

from typing import Any

from fsspec.utils import stringify_path

from rangeio.azure.endpoint import parse_rest
from rangeio.errors import UnsupportedError
from rangeio.fsspec.services import StoreFileSystem


class GcsFileSystem(StoreFileSystem):
    """Objects of Google Cloud Storage: ``rangeio+gs://bucket/key``.

    Options: those of `GcsService` and of reading (`Options`); and of gcsfs token, requester_pays, project.
    """

    protocol = ("rangeio+gs", "gs", "gcs")
    scheme = "gs"


class AzureFileSystem(StoreFileSystem):
    """Blobs of Azure: ``rangeio+az://container/blob``, or ``abfss://container@account.dfs.core.windows.net/blob``.

    Options: those of `AzureService` and of reading (`Options`); and of adlfs account_name, credential, anon.
    """

    protocol = ("rangeio+az", "az", "abfs", "abfss")
    scheme = "az"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        _, _, rest = stringify_path(path).partition("://")
        if "@" not in rest.partition("/")[0]:
            return super()._strip_protocol(path)
        options, blob = parse_rest(rest)
        return super()._strip_protocol(f"{options['container']}/{blob}")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        rest = path.partition("://")[2]
        if "@" not in rest.partition("/")[0]:
            return {}
        options, _ = parse_rest(rest)
        return {name: value for name, value in options.items() if name != "container"}


class _DirectFileSystem(StoreFileSystem):
    """Objects that are in no bucket."""

    @classmethod
    def _may_be_object(cls, path: str) -> bool:
        return bool(path)

    def _check_listable(self, path: str) -> None:
        """The root is a directory like others."""


class WebHdfsFileSystem(_DirectFileSystem):
    """Files of a Hadoop cluster: ``rangeio+webhdfs://host:9870/path``; paths have no slash at the beginning.

    Options: those of `WebHdfsService` and of reading (`Options`); and of fsspec's WebHDFS host, port, token.
    """

    protocol = ("rangeio+webhdfs", "webhdfs")
    scheme = "webhdfs"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        before, is_url, rest = stringify_path(path).partition("://")
        text = rest.partition("/")[2] if is_url else before
        return text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        cluster = path.partition("://")[2].partition("/")[0]
        return {"cluster": cluster} if cluster else {}

    def unstrip_protocol(self, name: str) -> str:
        """The URL, with the cluster if it was named."""
        path = self._strip_protocol(name)
        return f"{self.protocol[0]}://{self.storage_options.get('cluster', '')}/{path}"


class MemoryFileSystem(_DirectFileSystem):
    """Objects of this process: ``MemoryFileSystem(objects={"a/b": b"..."})``. They are not copied."""

    protocol = ("rangeio+memory",)
    scheme = "memory"
    cachable = False  # its objects may be many and large, and change


class HfFileSystem(StoreFileSystem):
    """Files of the Hugging Face hub: ``rangeio+hf://owner/name[@revision]/path``, ``rangeio+hf://datasets/...``.

    Options: those of `HfService` and of reading (`Options`); and of HfFileSystem token, endpoint.
    """

    protocol = ("rangeio+hf", "hf")
    scheme = "hf"

    @classmethod
    def _may_be_object(cls, path: str) -> bool:
        return path.count("/") >= _segments(path)

    def _check_listable(self, path: str) -> None:
        if path.count("/") < _segments(path) - 1:
            raise UnsupportedError(
                "repositories are not listed: name one, as owner/name or datasets/owner/name"
            )


def _segments(path: str) -> int:
    """How many segments of a path name its repository."""
    return 3 if path.startswith(("datasets/", "spaces/")) else 2
