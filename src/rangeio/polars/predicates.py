"""Predicates of polars as conditions of arrow: as much of them as arrow decides exactly as polars does.

A condition may be true of more rows than the predicate, never of fewer: polars applies the predicate to what is left.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import polars
import pyarrow as pa
import pyarrow.dataset

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": lambda left, right: left == right,
    "NotEq": lambda left, right: left != right,
    "Lt": lambda left, right: left < right,
    "LtEq": lambda left, right: left <= right,
    "Gt": lambda left, right: left > right,
    "GtEq": lambda left, right: left >= right,
}
_MIRRORED = {"Eq": "Eq", "NotEq": "NotEq", "Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
# polars sorts NaN above all numbers, arrow compares it as IEEE 754 does: these are false of NaN in both.
_OF_FLOATS = ("Eq", "Lt", "LtEq")
_MOST_VALUES = 1000


class _Unknown(Exception):
    """An expression that is left to polars."""


def pushed(predicate: polars.Expr, schema: Any) -> Any:
    """A pyarrow expression that is true of all rows for which `predicate` is true; None if none is known.

    schema: a pyarrow.Schema of the columns.
    """
    try:
        # The one public form of an expression. It may change with polars: then nothing is pushed.
        node = json.loads(predicate.meta.serialize(format="json"))
    except (polars.exceptions.PolarsError, ValueError, TypeError):
        return None
    found = None
    for part in _conjuncts(node):
        try:
            one = _exact(part, schema)
        except (_Unknown, KeyError, TypeError, ValueError, AttributeError, IndexError):
            continue
        except polars.exceptions.PolarsError:
            continue
        found = one if found is None else found & one
    return found


def _conjuncts(node: Any) -> list[Any]:
    inner = node.get("BinaryExpr") if isinstance(node, dict) else None
    if isinstance(inner, dict) and inner.get("op") in ("And", "LogicalAnd"):
        return [*_conjuncts(inner["left"]), *_conjuncts(inner["right"])]
    return [node]


def _exact(node: Any, schema: Any) -> Any:
    """An expression with the same value as the node for each row, null included."""
    ((kind, inner),) = node.items()
    if kind == "BinaryExpr":
        return _binary(inner, schema)
    if kind == "Column" and pa.types.is_boolean(schema.field(inner).type):
        return pyarrow.dataset.field(inner)
    if kind == "Function":
        return _function(inner, schema)
    raise _Unknown


def _binary(inner: Any, schema: Any) -> Any:
    left, operation, right = inner["left"], inner["op"], inner["right"]
    if operation in ("And", "LogicalAnd"):
        return _exact(left, schema) & _exact(right, schema)
    if operation in ("Or", "LogicalOr"):
        return _exact(left, schema) | _exact(right, schema)
    if "Column" not in left:
        left, operation, right = right, _MIRRORED[operation], left
    return _comparison(left["Column"], operation, _value(right), schema)


def _function(inner: Any, schema: Any) -> Any:
    inputs, function = inner["input"], inner["function"]["Boolean"]
    if function == "Not":
        return ~_exact(inputs[0], schema)
    name = inputs[0]["Column"]
    if function in ("IsNull", "IsNotNull"):
        column = pyarrow.dataset.field(name)
        schema.field(name)
        return column.is_null() if function == "IsNull" else column.is_valid()
    if "IsBetween" in function:
        closed = function["IsBetween"]["closed"]
        low, high = {
            "Both": ("GtEq", "LtEq"),
            "Left": ("GtEq", "Lt"),
            "Right": ("Gt", "LtEq"),
            "None": ("Gt", "Lt"),
        }[closed]
        low_one = _comparison(name, low, _value(inputs[1]), schema)
        return low_one & _comparison(name, high, _value(inputs[2]), schema)
    if "IsIn" in function and not function["IsIn"]["nulls_equal"]:
        return _is_in(name, _value(inputs[1]), schema)
    raise _Unknown


def _is_in(name: str, values: Any, schema: Any) -> Any:
    if not isinstance(values, list) or not 0 < len(values) <= _MOST_VALUES:
        raise _Unknown
    scalars = pa.array([_scalar(value, schema.field(name).type, "Eq").as_py() for value in values])
    column = pyarrow.dataset.field(name)
    # polars has null for null, arrow false: `& (column == column)` is null for null.
    return column.isin(scalars.cast(schema.field(name).type)) & (column == column)


def _comparison(name: str, operation: str, value: Any, schema: Any) -> Any:
    scalar = _scalar(value, schema.field(name).type, operation)
    return _COMPARED[operation](pyarrow.dataset.field(name), pyarrow.dataset.scalar(scalar))


def _scalar(value: Any, type: Any, operation: str) -> Any:
    """A value as a scalar of a column's type, if both compare it alike."""
    kinds = pa.types
    if (
        kinds.is_integer(type)
        or kinds.is_boolean(type)
        or kinds.is_string(type)
        or kinds.is_large_string(type)
    ):
        wanted: Any = bool if kinds.is_boolean(type) else int if kinds.is_integer(type) else str
        if isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool):
            return pa.scalar(value, type)
    elif kinds.is_float64(type) and operation in _OF_FLOATS:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return pa.scalar(float(value), type)
    elif isinstance(value, pa.Scalar) and value.type == type:
        return value
    raise _Unknown


def _value(node: Any) -> Any:
    """The value of a literal, from polars itself: an int, float, str, bool, list; a pyarrow.Scalar of a time."""
    if "Literal" not in node:
        raise _Unknown
    text = json.dumps(node).encode()
    found = polars.select(polars.Expr.deserialize(text, format="json").alias("value"))  # type: ignore[arg-type]
    scalar = found.to_arrow()["value"][0]
    if not scalar.is_valid:
        raise _Unknown
    return scalar if pa.types.is_temporal(scalar.type) else scalar.as_py()
