"""Arguments: what a client wrote for a parameter, read by the parameter's form.

What is known when a program is compiled becomes a value; what must be looked up when a step runs becomes a getter, a
function of the running program's scope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from engine.answer import ArrayData
from engine.backend import canonical
from engine.dtypes import dtype
from engine.errors import Bug, Hint, LimitExceeded, WrongType
from engine.literal import WORDS, is_literal
from engine.op import Op, ParamSpec, of_python
from engine.parameters import CHOICES

Getter = Callable[[Any], Any]  # of the scope


def read_argument(op: Op, p: ParamSpec, value: Any) -> tuple[bool, Any]:
    """(True, value) where an argument is known now, (False, getter) where it must be looked up."""
    form = p.form
    if value is None:
        if form.endswith("?") or (form in ("any", "index")) or (not p.required and p.default is None):
            return form != "index", None if form != "index" else (lambda scope: [None])
        raise _wrong(op, p, value)
    for reader in _readers(form):
        found = reader(op, p, value)
        if found is not None:
            return found
    raise _wrong(op, p, value)


@cache
def _readers(form: str) -> tuple[Callable[[Op, ParamSpec, Any], Read], ...]:
    """The readers of a form's alternatives, in the order in which they are tried."""
    parts = form.removesuffix("?").split("|")
    # A number is a Python scalar wherever PyTorch takes one, and a 0-d tensor where it takes only tensors.
    parts.sort(key=lambda part: part != "scalar")
    for part in parts:
        if part not in _READERS:
            raise Bug(f"no reader for {part}")
    return tuple([_READERS[part] for part in parts])


def _wrong(op: Op, p: ParamSpec, value: Any) -> WrongType:
    words = CHOICES.get(f"{op.name.removesuffix('_')}.{p.name}") or (CHOICES.get(p.name) if p.choices else None)
    if words is not None and (isinstance(value, str) or of_python(op.name)):
        near = get_close_matches(str(value), p.choices, 1, 0.5)
        hint = Hint("choice", near=near[0]) if near else Hint("choices", choices=list(p.choices))
        if not p.choices:
            hint = Hint("argument-type", param=p.name, type=p.type)
        return WrongType(words.format(value=value), op=op.name, param=p.name, hint=hint)
    wanted = _TYPES.get(p.form.removesuffix("?"))
    if wanted is not None and not p.choices:
        return WrongType(
            f"{op.called}(): argument '{p.name}' {_mismatch(wanted, value)}",
            op=op.name,
            param=p.name,
            hint=Hint("argument-type", param=p.name, type=p.type),
        )
    shown = f"; it is one of {', '.join(map(repr, p.choices))}" if p.choices else ""
    got = repr(value) if isinstance(value, str) and len(value) < 40 else kind_of(value)
    near = get_close_matches(value, p.choices, 1, 0.5) if p.choices and isinstance(value, str) else []
    return WrongType(
        f"{op.called}(): argument '{p.name}' must be {p.type}, not {got}{shown}",
        op=op.name,
        param=p.name,
        hint=Hint("choice", near=near[0]) if near else Hint("argument-type", param=p.name, type=p.type),
    )


# What PyTorch calls the types of parameters.
_TYPES = {
    "tensor": "Tensor",
    "tensors": "tuple of Tensors",
    "scalar": "Number",
    "int": "int",
    "dim": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "shape": "tuple of ints",
    "ints": "tuple of ints",
    "dims": "tuple of ints",
    "ints|str": "tuple of ints",
    "float|floats": "float",
    "floats": "tuple of floats",
    "tensor|scalar": "Tensor",
    "scalar|tensor": "Tensor",
    "tensor|tensors": "tuple of Tensors",
    "dtype": "torch.dtype",
    "device": "torch.device",
}


def _python_type(value: Any) -> str:
    """The name of the Python type that a JSON value would be."""
    if type(value) is dict and (found := number(value)) is not None:
        value = found
    return {ArrayData: "list", type(None): "NoneType"}.get(type(value), type(value).__name__)


def _mismatch(wanted: str, value: Any) -> str:
    """How a value is not of a type, in PyTorch's words, which looks at a list's first item and unpacks the others."""
    items = value.array.tolist() if isinstance(value, ArrayData) else value
    if wanted == "tuple of ints" and isinstance(items, list) and items and type(items[0]) is int:
        at, item = next((i, x) for i, x in enumerate(items) if type(x) not in (int, bool))
        return _unpacking(at, f"type must be {wanted},but got {_python_type(item)}")
    return f"must be {wanted}, not {_python_type(value)}"


def _unpacking(at: int, error: str) -> str:
    return f'failed to unpack the object at pos {at + 1} with error "{error}"'


def kind_of(value: Any) -> str:
    """What a JSON value is, for an error."""
    if isinstance(value, ArrayData):
        return "a list"
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "bool"}
    return names.get(type(value), type(value).__name__)


Read = tuple[bool, Any] | None


def number(value: Any) -> Any:
    """A JSON number argument, with its special forms; None where it is none."""
    kind = type(value)
    if kind in (bool, int, float, complex):
        return value
    if kind is dict:
        if set(value) == {"re", "im"}:
            re_, im = number(value["re"]), number(value["im"])
            if type(re_) in (int, float) and type(im) in (int, float):
                return complex(re_, im)
        if set(value) == {"float"} and type(value["float"]) in (int, float):
            return float(value["float"])
    if kind is str:
        return WORDS.get(value)
    return None


def _read_tensor(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is str and value not in WORDS:  # NaN and infinities are numbers, and no names
        return False, lambda scope: scope.tensor(value, p.name)
    if p.form.removesuffix("?") == "tensor|tensors" and type(value) is list and _refers(value):
        return None  # a list of tensors, then
    if is_literal(value):
        return False, lambda scope: scope.literal(value, p.name)
    return None


def _refers(items: list[Any]) -> bool:
    """Whether a list, or a list in it, has references or objects in it, and so is a list of tensors."""
    return any(
        (type(v) is str and v not in WORDS) or type(v) is dict or (type(v) is list and _refers(v)) for v in items
    )


def _read_scalar(op: Op, p: ParamSpec, value: Any) -> Read:
    found = number(value)
    if type(found) is int and not -(2**63) <= found < 2**64:
        words = "int too big to convert" if found > 0 else "can't convert negative int to unsigned"
        raise LimitExceeded(words, code="integer-too-large", op=op.name, param=p.name)
    return None if found is None else (True, found)


def _read_tensors(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is str:
        return False, lambda scope: scope.tensors(value, p.name, op.name, nulls=p.gaps)
    if type(value) is ArrayData:
        rows = [ArrayData(row, value.dtype, value.inferred) for row in value.array]
        return False, lambda scope: [scope.literal(row, p.name) for row in rows]
    if type(value) is not list:
        return None
    if len(value) == 1 and type(value[0]) is list and _refers(value[0]):
        value = value[0]  # meshgrid([a, b]) as well as meshgrid(a, b)
    getters: list[Getter | None] = []
    for at, item in enumerate(value):
        if item is None:
            if not p.gaps:
                raise WrongType(
                    f"expected Tensor as element {at} in argument {op.names.index(p.name)}, but got NoneType",
                    op=op.name,
                    param=p.name,
                    hint=Hint("argument-type", param=p.name, type=p.type),
                )
            getters.append(None)
            continue
        found = _read_tensor(op, p, item)
        if found is None:
            return None
        getters.append(found[1])
    return False, lambda scope: [None if g is None else g(scope) for g in getters]


def _read_int(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is not int:
        return None
    if p.name != "seed":  # of 64 bits with or without a sign
        _fits(op, p, value)
    return True, value


def _fits(op: Op, p: ParamSpec, value: int, at: int | None = None) -> None:
    """`at`: where in a list the number stands."""
    if not -(2**63) <= value < 2**63:
        words = "Overflow when unpacking long long"
        if at is not None:
            words = f"{op.called}(): argument '{p.name}' {_unpacking(at, words)}"
        raise LimitExceeded(words, code="integer-too-large", op=op.name, param=p.name)


def _read_float(op: Op, p: ParamSpec, value: Any) -> Read:
    found = number(value)  # True is 1.0, as in Python
    return (True, float(found)) if type(found) in (bool, int, float) else None


def _read_bool(op: Op, p: ParamSpec, value: Any) -> Read:
    return (True, value) if type(value) is bool else None


def _read_str(op: Op, p: ParamSpec, value: Any) -> Read:
    return (True, value) if type(value) is str else None


def _read_choice(op: Op, p: ParamSpec, value: Any) -> Read:
    return (True, value) if value in p.choices and type(value) is not bool else None


def _read_ints(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is int:
        _fits(op, p, value)
        return True, value
    return _read_shape(op, p, value)


def _read_shape(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is int:
        _fits(op, p, value)
        return True, [value]
    if type(value) is ArrayData and value.dtype == "int64" and value.array.ndim == 1:
        value = value.array.tolist()
    if type(value) is not list:
        return None
    if not all(type(v) is int for v in value):
        # PyTorch looks at the first item's type, and takes the others for ints where they can be.
        if type(value[0]) is not int or not all(type(v) in (int, bool) for v in value):
            return None
        value = [int(v) for v in value]
    for at, v in enumerate(value):
        _fits(op, p, v, at)
    return True, value


def _read_numbers(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is not list:
        return None
    found = [number(v) for v in value]
    return None if any(v is None for v in found) else (True, found)


def _read_dtype(op: Op, p: ParamSpec, value: Any) -> Read:
    return (True, dtype(value)) if type(value) is str else None


def _read_device(op: Op, p: ParamSpec, value: Any) -> Read:
    return (True, canonical(value)) if type(value) is str else None


def _read_state(op: Op, p: ParamSpec, value: Any) -> Read:
    if type(value) is str:
        return False, lambda scope: scope.state(value, p.name)
    if type(value) is not dict:
        return None
    groups = {}
    for name, items in value.items():
        found = _read_tensors(op, p, items)
        if found is None:
            return None
        groups[name] = found[1]
    return False, lambda scope: {name: get(scope) for name, get in groups.items()}


def _read_data(op: Op, p: ParamSpec, value: Any) -> Read:
    """What torch.tensor takes: data as they are; a string is a reference, unless it is a number."""
    if type(value) is str and value not in WORDS and not value.lstrip("+-").isdecimal():
        return False, lambda scope: scope.tensor(value, p.name)
    return True, value


def _read_any(op: Op, p: ParamSpec, value: Any) -> Read:
    found = number(value)
    return True, value if found is None else found


_SLICE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?\Z")


def parse_slice(text: str) -> slice | None:
    """ "1:", "::2", ":" as a slice; None where the string is none."""
    found = _SLICE.match(text)
    if found is None:
        return None
    return slice(*(int(part) if part else None for part in found.groups()))


def _read_index(op: Op, p: ParamSpec, value: Any) -> Read:
    items = value if type(value) is list else [value]
    readers: list[Getter] = []
    for item in items:
        found = _index_item(item, p)
        if found is None:
            raise WrongType(
                "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
                f"(got {_python_type(item)})",
                op=op.name,
                param=p.name,
                hint=Hint("index-items"),
            )
        readers.append(found)
    return False, lambda scope: [g(scope) for g in readers]


def _index_item(item: Any, p: ParamSpec) -> Getter | None:
    if item is None or type(item) in (bool, int):
        return lambda scope: item
    if type(item) is str:
        if item == "...":
            return lambda scope: Ellipsis
        if ":" in item:
            part = parse_slice(item)
            if part is None:
                raise WrongType(
                    f"{item!r} is not a slice: write start:stop:step, each of them a whole number or nothing",
                    param=p.name,
                    hint=Hint("slice"),
                )
            return lambda scope: part
        return lambda scope: scope.tensor(item, p.name)
    if type(item) is ArrayData or (type(item) is dict and "data" in item) or type(item) is list:
        return lambda scope: scope.literal(item, p.name, empty=int)
    return None


_READERS: dict[str, Callable[[Op, ParamSpec, Any], Read]] = {
    "tensor": _read_tensor,
    "tensors": _read_tensors,
    "scalar": _read_scalar,
    "scalars": _read_numbers,
    "floats": _read_numbers,
    "int": _read_int,
    "dim": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "str": _read_str,
    "choice": _read_choice,
    "ints": _read_ints,
    "dims": _read_ints,
    "shape": _read_shape,
    "dtype": _read_dtype,
    "device": _read_device,
    "state": _read_state,
    "index": _read_index,
    "data": _read_data,
    "any": _read_any,
}


class Given(dict[str, Any]):
    """What the caller gave, by parameter.

    A composite's error may come from an operation within it, whose parameters have other names: where the call has one
    tensor alone, that is the one that is meant.
    """

    def __init__(self, given: dict[str, Any], op: Op | None = None) -> None:
        super().__init__(given)
        self.op = op

    def __missing__(self, name: str) -> Any:
        op = self.op
        if op is None or name in op.positions or len(op.slots) != 1:
            raise KeyError(name)
        return self[op.names[op.slots[0][0]]]


def references(args: Mapping[str, Any], op: Op | None = None) -> Given:
    """What the caller gave for each parameter, as hints may repeat it: references and small values."""
    return Given(
        {k: v for k, v in args.items() if isinstance(v, str | int | float) or (isinstance(v, list) and len(v) <= 8)}, op
    )
