"""What PyTorch reads, over rangeio: records for a DataLoader, checkpoints of torch.save, distributed checkpoints.

    dataset = RecordDataset("s3://bucket/records.bin", dtype=torch.float32, shape=(3, 224, 224))
    loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=4, collate_fn=collate)
    weights = load("https://host/model.pt", map_location="cpu")
    torch.distributed.checkpoint.load(state, storage_reader=DcpReader("s3://bucket/step-1000"))

Needs torch (``pip install 'rangeio[torch]'``).
"""

from typing import TYPE_CHECKING, Any

try:
    import torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "torch":
        raise
    raise ImportError("rangeio.adapters.torch needs torch: pip install 'rangeio[torch]'") from None

from rangeio.adapters.torch.archives import load
from rangeio.adapters.torch.records import RecordDataset, collate

if TYPE_CHECKING:
    from rangeio.adapters.torch.checkpoints import DcpReader

__all__ = ["DcpReader", "RecordDataset", "collate", "load"]


def __getattr__(name: str) -> Any:
    if (
        name == "DcpReader"
    ):  # torch.distributed.checkpoint takes as long to import as torch; workers do not need it
        from rangeio.adapters.torch.checkpoints import DcpReader

        return DcpReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
