"""Reads the packed cases: tagged JSON as Python values, tensors as NumPy arrays.

$in k          the case's input number k           $tensor i    row i of the file's tensors
$tuple [...]   a tuple; `fields` are its names     $float       nan, inf, -inf        $complex [re, im]
$dtype $device $layout $memory_format $pytype      words        $slice [...]          $ellipsis
$spec [dtype, shape]                               only dtype and shape are promised
"""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent / "cases"


class Word(str):
    """A dtype, device, layout or Python type, given by its name."""

    __slots__ = ()


class Fields(tuple[Any, ...]):
    """A tuple whose items have names."""

    __slots__ = ()


@dataclass(frozen=True)
class Reference:
    """An input of the case, by its number."""

    number: int


@dataclass(frozen=True)
class Array:
    """A tensor: its dtype, and its elements as they are stored (bfloat16 as uint16 bits)."""

    dtype: str
    stored: np.ndarray[Any, Any]

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """The elements as numbers: bfloat16 widened to float32."""
        return widened(self.stored, self.dtype)


def widened(stored: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Stored elements as numbers."""
    return (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else stored


class Table:
    """The tensors of a family's file, decoded when they are asked for."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.made: dict[int, Array] = {}

    def __getitem__(self, row: int) -> Array:
        if row not in self.made:
            dtype, shape, text = self.rows[row]
            kind = {"bfloat16": "uint16", "complex32": "float16"}.get(dtype, dtype)
            flat = np.frombuffer(base64.b64decode(text), np.dtype(kind).newbyteorder("<"))
            self.made[row] = Array(dtype, flat.reshape([*shape, 2] if dtype == "complex32" else shape))
        return self.made[row]


def value(v: Any, table: Table) -> Any:
    """A tagged value as a Python value; an input is a Reference."""
    if isinstance(v, list):
        return [value(x, table) for x in v]
    if not isinstance(v, dict):
        return v
    if "$tuple" in v:
        items = [value(x, table) for x in v["$tuple"]]
        return Fields(items) if v.get("fields") else tuple(items)
    if "$slice" in v:
        return slice(*[value(x, table) for x in v["$slice"]])
    if "$complex" in v:
        return complex(*[value(x, table) for x in v["$complex"]])
    if "$in" in v:
        return Reference(v["$in"])
    if "$tensor" in v:
        return table[v["$tensor"]]
    if "$float" in v:
        return float(v["$float"])
    if "$ellipsis" in v:
        return Ellipsis
    if "$spec" in v:
        return Spec(v["$spec"][0], tuple(v["$spec"][1]))
    if "$dict" in v:
        return {value(k, table): value(x, table) for k, x in v["$dict"]}
    ((tag, word),) = v.items()
    if tag in ("$dtype", "$device", "$layout", "$memory_format", "$pytype", "$pyspec"):
        return Word(word)
    raise ValueError(f"unknown tag in {v}")


@dataclass(frozen=True)
class Spec:
    """What an operation on random numbers must give."""

    dtype: str
    shape: tuple[int, ...]


@dataclass
class Case:
    """One call of an operation, and what PyTorch answered."""

    op: str
    meta: dict[str, Any]
    raw: dict[str, Any]
    table: Table

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @cached_property
    def inputs(self) -> list[Array]:
        return [self.table[row["t"]] for row in self.raw["inputs"]]

    @cached_property
    def arguments(self) -> tuple[list[Any], dict[str, Any], dict[str, Any] | None]:
        """Positional and keyword arguments, and the same by parameter names where they were found."""
        bound = self.raw.get("bound")
        named = None if bound is None else {k: value(v, self.table) for k, v in bound.items()}
        return (
            value(self.raw["args"], self.table),
            {k: value(v, self.table) for k, v in self.raw["kwargs"].items()},
            named,
        )

    @cached_property
    def output(self) -> Any:
        return value(self.raw["expect" if self.kind == "random" else "output"], self.table)

    @property
    def operation(self) -> str | None:
        """The service's name for what the case calls; None for PyTorch's internals and Python's operators."""
        name = str(self.raw["call"]).removeprefix("torch.")
        if name.startswith(("ops.", "torch.")):
            return None
        name = name.removeprefix("Tensor.")
        if name == "__getitem__":
            return "getitem"
        return None if name.startswith("_") else name

    def tolerance(self, of: str) -> tuple[float, float]:
        """(relative, absolute). Sums here are added in another order, for which the cases ask a factor of four."""
        relative, absolute = (self.raw.get("tol") or {}).get(of, (0.0, 0.0))
        factor = 40 if of == "out" and self.raw.get("gauge") else 4
        return relative * factor, absolute * factor


def families() -> list[str]:
    return sorted(path.name.removesuffix(".json.xz") for path in FOLDER.glob("*.json.xz"))


@cache
def cases(family: str) -> tuple[Case, ...]:
    """Every case of a family, errors too."""
    return tuple(_cases(family))


def _cases(family: str) -> Iterator[Case]:
    document = json.loads(lzma.decompress((FOLDER / f"{family}.json.xz").read_bytes()))
    table = Table(document["tensors"])
    for op, found in document["ops"].items():
        for raw in (*found["cases"], *found["errors"]):
            yield Case(op, found["meta"], raw, table)
