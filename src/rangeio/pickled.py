"""What of an Operator's options goes into its pickle, and what is told about the rest."""

import sys
from collections.abc import Iterable, Mapping
from pickle import PicklingError
from types import FunctionType
from typing import Any

# These pickle functions that have no importable name, as Dask and Ray do.
_BY_VALUE = ("cloudpickle", "dill")


def lost_of(given: Mapping[str, Any], kept: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the given options that a pickle leaves out, or of which it leaves out a part, as they are secret."""
    return tuple(
        sorted(name for name, value in given.items() if name not in kept or _is_less(name, value, kept))
    )


def _is_less(name: str, value: Any, kept: Mapping[str, Any]) -> bool:
    if name == "headers":
        return len(kept[name]) < len(value or {})
    return isinstance(value, str) and "@" in value and value != kept[name]  # a login in a URL


def advice_for(lost: Iterable[str], instead: str) -> str:
    """What to do about an error that is due to these missing options. instead: what of this service travels."""
    names = ", ".join(f"{name}=" for name in lost)
    return f"keys given by argument do not travel: {names} stayed in the process that pickled this; {instead}"


def check_functions(options: Mapping[str, Any]) -> None:
    """PicklingError for a function that only exists in this process, unless the pickler can take it as it is."""
    for name, value in options.items():
        if isinstance(value, FunctionType) and "<" in value.__qualname__ and not _is_by_value():
            raise PicklingError(
                f"{name}= is {value.__qualname__}, which exists in this process only: to pickle this, define a"
                " function at the top of a module, which another process finds by its name"
            )


def _is_by_value() -> bool:
    """Whether a pickler is at work that takes functions as they are; pickle itself has no frame, or is in `pickle`."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if any(part in _BY_VALUE for part in module.split(".")):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
