"""The two frameworks that tensors are made for: what a tensor is there, over memory that numpy has."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from rangeio.adapters.arrays import Bytes
from rangeio.adapters.safetensors.header import BITS, Tensor, short
from rangeio.errors import ConfigInvalidError, UnsupportedError


class Frame(Protocol):
    """Makes tensors of one framework."""

    device: Any
    """Where the tensors shall be; None if that is where they are read to."""

    def tensor(self, data: Bytes, one: Tensor, shape: tuple[int, ...]) -> Any:
        """A tensor of these items over this memory. UnsupportedError if the framework has no such items."""

    def moved(self, tensor: Any) -> Any:
        """The tensor on the device."""

    def memory_of(self, tensor: Any, one: Tensor) -> Bytes:
        """The memory of a tensor of the caller. ValueError if it cannot be filled with `one`."""


def frame_for(framework: str, device: Any) -> Frame:
    """ConfigInvalidError for an unknown framework, ImportError if it is not installed."""
    if framework in ("np", "numpy"):
        if str(device) != "cpu":
            raise ConfigInvalidError(f"numpy has no device {device!r}; framework='pt' has")
        return NumpyFrame()
    if framework in ("pt", "torch", "pytorch"):
        try:
            return TorchFrame(import_module("torch"), device)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
        raise ImportError("torch is missing: pip install 'rangeio[torch]', or pass framework='np'")
    raise ConfigInvalidError(f"framework must be 'pt' or 'np', not {framework!r}")


_PLAIN = {
    "BOOL": "?",
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "C64": "<c8",
}
_OF_ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
_OF_TORCH = {
    "BOOL": "bool",
    **{
        f"{short}{8 * size}": f"{kind}{8 * size}"
        for short, kind in (("I", "int"), ("U", "uint"))
        for size in (1, 2, 4, 8)
    },
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": "complex64",
    **_OF_ML_DTYPES,
    "F4": "float4_e2m1fn_x2",
}


def _no_such(one: Tensor, framework: str, advice: str = "") -> UnsupportedError:
    return UnsupportedError(
        f"tensor {short(one.name)} is {one.dtype}, which {framework} does not have{advice}"
    )


class NumpyFrame:
    """Arrays of numpy; bfloat16 and the floats of 8 bits are those of ml_dtypes."""

    device = None

    def _dtype(self, one: Tensor) -> np.dtype[Any]:
        if one.dtype in _PLAIN:
            return np.dtype(_PLAIN[one.dtype])
        if one.dtype not in _OF_ML_DTYPES:
            raise _no_such(one, "numpy", "; framework='pt' may")
        try:
            known = import_module("ml_dtypes")
        except ModuleNotFoundError:
            raise ImportError(
                f"tensor {short(one.name)} is {one.dtype}, which numpy has with ml_dtypes only:"
                " pip install 'rangeio[safetensors]', or pass framework='pt'"
            ) from None
        found = getattr(known, _OF_ML_DTYPES[one.dtype], None)
        if found is None:
            raise _no_such(one, "this ml_dtypes")
        dtype: np.dtype[Any] = np.dtype(found)
        return dtype

    def tensor(self, data: Bytes, one: Tensor, shape: tuple[int, ...]) -> Any:
        return data.view(self._dtype(one)).reshape(shape)

    def moved(self, tensor: Any) -> Any:
        return tensor

    def memory_of(self, tensor: Any, one: Tensor) -> Bytes:
        dtype = self._dtype(one)
        if not isinstance(tensor, np.ndarray):
            raise _unfit(one, f"it is a {type(tensor).__name__}, not an array of numpy")
        if tensor.dtype != dtype or tensor.shape != one.shape:
            raise _unfit(one, f"it has {tensor.dtype} {tensor.shape}, not {dtype} {one.shape}")
        if not tensor.flags.c_contiguous or not tensor.flags.writeable:
            raise _unfit(one, "it is not contiguous, or read-only")
        return tensor.reshape(-1).view(np.uint8)


class TorchFrame:
    """Tensors of torch, moved to the device by `Tensor.to` after they were read."""

    def __init__(self, torch: ModuleType, device: Any) -> None:
        self._torch: Any = torch
        index = isinstance(device, int)  # as torch has it: the number of an accelerator
        wanted = torch.device("cuda", device) if index else torch.device(device)
        self.device = None if wanted.type == "cpu" else wanted

    def _dtype(self, one: Tensor) -> Any:
        found = getattr(self._torch, _OF_TORCH.get(one.dtype, ""), None)
        if found is None or sys.byteorder == "big":
            raise _no_such(one, "this torch" if found is None else "a machine of this byte order")
        return found

    def tensor(self, data: Bytes, one: Tensor, shape: tuple[int, ...]) -> Any:
        dtype, held = self._dtype(one), self._held(one, shape)
        if not data.size:
            return self._torch.empty(held, dtype=dtype)
        return self._torch.from_numpy(data).view(dtype).reshape(held)

    def _held(self, one: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in items of torch, which are pairs where they have four bits."""
        if BITS[one.dtype] >= 8:
            return shape
        if not shape or shape[-1] % 2:
            raise _no_such(one, "torch", " with rows of an odd length")
        return *shape[:-1], shape[-1] // 2

    def moved(self, tensor: Any) -> Any:
        return tensor if self.device is None else tensor.to(self.device)

    def memory_of(self, tensor: Any, one: Tensor) -> Bytes:
        torch, dtype = self._torch, self._dtype(one)
        shape = self._held(one, one.shape)
        if not isinstance(tensor, torch.Tensor):
            raise _unfit(one, f"it is a {type(tensor).__name__}, not a tensor of torch")
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise _unfit(one, f"it has {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise _unfit(one, f"it is not dense, or not in memory but on {tensor.device}")
        if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
            raise _unfit(one, "it is not contiguous")
        if not tensor.numel():
            return np.empty(0, np.uint8)
        memory: Bytes = tensor.detach().reshape(-1).view(torch.uint8).numpy()
        return memory


def _unfit(one: Tensor, reason: str) -> ValueError:
    return ValueError(f"the tensor for {short(one.name)} cannot be filled: {reason}")
