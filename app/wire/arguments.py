"""Where long numeric lists in a body may be taken as arrays: in `data`, and where an operation takes a tensor.

The operation's parameter decides, not the list: `size: [2, 3]` and the items of an index are no tensors. What the
parameters are is read off the catalogue's schemas once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from app.wire.json_read import Arrays, array_of

Kind = Literal["tensor", "items", "data"]
Kinds = Mapping[str, Mapping[str, Kind]]

_DATA = "#/components/schemas/DataArg"
_WHOLE = "#/components/schemas/TensorArg"
_ITEMS = ("#/components/schemas/TensorListArg", "#/components/schemas/IndexArg")


def kinds_of(catalogue: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Kind]]:
    """For each operation its parameters that are a tensor, hold some (`items`), or are a tensor's `data` themselves."""
    kinds: dict[str, dict[str, Kind]] = {}
    for op in catalogue:
        found: dict[str, Kind] = {}
        for param in op["params"]:
            references = set(_references(param.get("schema")))
            if not references.isdisjoint(_ITEMS):
                found[param["name"]] = "items"
            elif _WHOLE in references:
                found[param["name"]] = "tensor"
            elif _DATA in references:
                found[param["name"]] = "data"
        kinds[op["name"]] = found
    return kinds


def _references(schema: Any) -> Iterable[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def with_arrays(args: dict[str, Any], kinds: Mapping[str, Kind], arrays: Arrays) -> dict[str, Any]:
    """An operation's arguments with arrays in place of the long lists that stand for tensors."""
    if not arrays:
        return args
    taken = dict(args)
    for name, value in args.items():
        kind = kinds.get(name)
        if type(value) is dict:
            taken[name] = data_with_array(value, arrays)
        elif kind == "tensor":
            taken[name] = tensor_with_array(value, arrays)
        elif kind == "data":
            array = arrays.take(value)
            taken[name] = value if array is None else array
        elif kind == "items" and type(value) is list:
            joined = id(value) in arrays
            arrays.fill(value)
            taken[name] = [_on_its_own(item) if joined else tensor_with_array(item, arrays) for item in value]
    return taken


def tensor_with_array(value: Any, arrays: Arrays) -> Any:
    """What stands for one tensor, its long list as an array: nested lists, or an object with `data`."""
    if type(value) is list:
        array = arrays.take(value)
        return value if array is None else {"data": array}
    return data_with_array(value, arrays) if type(value) is dict else value


def data_with_array(value: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """An object with a long list under `data` with the array there."""
    array = arrays.take(value.get("data"))
    return value if array is None else {**value, "data": array}


def _on_its_own(item: Any) -> Any:
    """An item of a list that was read as one array: its own dtype counts, not that of all items together."""
    array = array_of(item) if type(item) is list else None
    return item if array is None else {"data": array}
