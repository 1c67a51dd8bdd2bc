"""Chains on arrays: where each operand lies, the kernels of a device, and calls of them.

Kernels are kept by what they say, so a chain is compiled once for all its shapes and numbers. Before one is used it is
run on a few numbers beside the array code; one that disagrees, or does not compile, is not used, and array code runs.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from engine.fused.source import (
    DENSE,
    MOST_DIMENSIONS,
    NAME,
    ONE,
    OPTIONS,
    PRELUDE,
    STRIDED,
    Chain,
    source,
)
from engine.fused.table import array_code, dtype_of, scalar

log = logging.getLogger("curlgrad.fused")

Array = Any

THREADS = 256  # of a block
MOST_BLOCKS = 1 << 16
NARROW = 1 << 30  # elements from which indices need 64 bits
KEPT = 512  # kernels
CLOSE = 1e-3  # how far a check lets results be apart where the mathematical library is called


# ---------------------------------------------------------------- where operands lie


class Space:
    """The index space of a call: `sizes`, and for each array its layout and its strides in elements."""

    __slots__ = ("layouts", "n", "sizes", "strides", "wide")

    def __init__(self, shape: Sequence[int], arrays: Sequence[Array]) -> None:
        """Raises ValueError where an array does not broadcast to the shape, or lies in a way that no kernel reads."""
        rows = [_strides(shape, a) for a in arrays]
        dense = _dense(shape)
        kinds = [ONE if not any(row) else DENSE if _same(row, dense, shape) else STRIDED for row in rows]
        self.n = 1
        for size in shape:
            self.n *= size
        self.layouts = kinds if self.n != 1 else [ONE] * len(rows)
        self.sizes: list[int] = []
        self.strides: list[tuple[int, ...]] = [()] * len(rows)
        reach = self.n
        moving = [i for i, kind in enumerate(self.layouts) if kind == STRIDED]
        if moving:
            sizes, kept = _joined(shape, [rows[i] for i in moving])
            if len(sizes) > MOST_DIMENSIONS:
                raise ValueError("there are too many dimensions")
            self.sizes = sizes
            for i, row in zip(moving, kept, strict=True):
                self.strides[i] = tuple(row)
                reach = max(reach, sum(abs(s) * (size - 1) for s, size in zip(row, sizes, strict=True)))
        self.wide = max(self.n, reach) >= NARROW

    def numbers(self) -> list[Any]:
        """The sizes and strides as a kernel takes them."""
        index = np.int64 if self.wide else np.int32
        found = [index(self.n)]
        found += [index(size) for size in self.sizes[1:]]
        for row in self.strides:
            found += [index(s) for s in row]
        return found


def _strides(shape: Sequence[int], array: Array) -> list[int]:
    extra = len(shape) - array.ndim
    if extra < 0:
        raise ValueError("an array has more dimensions than the result")
    row = [0] * extra
    for size, given, stride in zip(shape[extra:], array.shape, array.strides, strict=True):
        if given != size and given != 1:
            raise ValueError("an array does not broadcast")
        if stride % array.itemsize:
            raise ValueError("an array lies between elements")
        row.append(0 if given == 1 else stride // array.itemsize)
    return row


def _dense(shape: Sequence[int]) -> list[int]:
    row, step = [], 1
    for size in reversed(shape):
        row.append(step)
        step *= size
    return row[::-1]


def _same(row: Sequence[int], dense: Sequence[int], shape: Sequence[int]) -> bool:
    return all(a == b or size == 1 for a, b, size in zip(row, dense, shape, strict=True))


def _joined(shape: Sequence[int], rows: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides with neighbours joined where all arrays step from one into the other."""
    sizes: list[int] = []
    kept: list[list[int]] = [[] for _ in rows]
    for d, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(k[-1] == row[d] * size for k, row in zip(kept, rows, strict=True)):
            sizes[-1] *= size
            for k, row in zip(kept, rows, strict=True):
                k[-1] = row[d]
        else:
            sizes.append(size)
            for k, row in zip(kept, rows, strict=True):
                k.append(row[d])
    return sizes, kept


# ---------------------------------------------------------------- kernels


def values_of(chain: Chain, xp: Any, sp: Any, inputs: Sequence[Array], scalars: Sequence[Any]) -> list[Array]:
    """What the chain's functions give, by array code: the definition that kernels are held to."""
    values = [*inputs, *scalars]
    for name, loop, operands in chain.functions:
        values.append(array_code(name, loop, xp, sp)(*[values[v] for v in operands]))
    return values


class Kernels:
    """The kernels of one device. `why`: why there are none, where that is so for all."""

    def __init__(self, xp: Any, sp: Any) -> None:
        self.xp, self.sp = xp, sp
        self.why: str | None = None
        self._made: OrderedDict[Chain, Any] = OrderedDict()  # a kernel, or the reason why there is none

    def forget(self, why: str | None = None) -> None:
        """Lets go of all kernels; with `why` there are none from then on."""
        self._made.clear()
        self.why = why

    def kernel(self, chain: Chain) -> Any:
        """The kernel of a chain, ready to be called, or in words why there is none."""
        found = self._made.get(chain)
        if found is not None:
            self._made.move_to_end(chain)
            return found
        if self.why is not None:
            return self.why
        made: Any = self.xp.RawKernel(PRELUDE + source(chain), NAME, OPTIONS)
        try:
            trouble = self._trouble(chain, made)
        except Exception as error:
            if type(error).__name__ == "NoCompiler":
                self.why = str(error)
                return self.why
            if type(error).__name__ != "CompileException":
                raise
            trouble = "a kernel does not compile"
            log.error("a kernel does not compile, and array code runs: %s\n%s", error, source(chain))
        if trouble is not None:
            made = trouble
        self._made[chain] = made
        if len(self._made) > KEPT:
            self._made.popitem(last=False)
        return made

    def _trouble(self, chain: Chain, kernel: Any) -> str | None:
        """Runs the kernel beside the array code on a few numbers; what is wrong with it, or None."""
        xp = self.xp
        whole = any(layout != ONE for _, layout in chain.outputs)
        shape = ((3,) * chain.dimensions or (7,)) if whole else ()
        number = iter(range(1, 1000))
        inputs = [_example(xp, code, layout, shape, next(number)) for code, layout in chain.inputs]
        scalars = [dtype_of(code).type(next(number) % 3 + 1) for code in chain.scalars]
        dtypes = chain.dtypes()
        outputs = [_example(xp, dtypes[at], layout, shape, 0) for at, layout in chain.outputs]
        call = Call(chain, Space(shape, [*inputs, *outputs]), scalars, kernel, xp, self.sp)
        call.launch(inputs, outputs)
        plain = [x.item() for x in scalars]
        values = values_of(chain, xp, self.sp, inputs, plain)
        for (at, _), made in zip(chain.outputs, outputs, strict=True):
            value = values[at]
            wanted = np.broadcast_to(value.get(), shape)
            if not _agree(made.get(), wanted.astype(made.dtype), chain.library):
                log.error("a kernel and its array code disagree, and array code runs:\n%s", source(chain))
                return "a kernel does not give what its array code gives"
        return None


def _example(xp: Any, code: str, layout: str, shape: Sequence[int], number: int) -> Array:
    """A few numbers in a layout: strided ones lie backwards in dimensions, and apart."""
    d = dtype_of(code)
    size = 1 if layout == ONE else int(np.prod(shape))
    line = (np.arange(size) * 5 + number) % 7 + 1
    host = (line % 2 == 0) if code == "b1" else (line / (1 if code[0] in "iu" else 4)).astype(d)
    if code == "u2":  # may be bfloat16's bits: small numbers
        host = (host + np.uint16(0x3F80)).astype(d)
    if layout == ONE:
        return xp.asarray(host.reshape(()))
    if layout == DENSE:
        return xp.asarray(host.reshape(shape))
    apart = np.zeros((*shape[::-1], 2), d)
    apart[..., 0] = host.reshape(shape[::-1])
    axes = tuple(range(len(shape)))[::-1]
    return xp.asarray(apart)[..., 0].transpose(*axes)


def _agree(made: Any, wanted: Any, library: bool) -> bool:
    if library and made.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return bool(np.allclose(made.astype("f8"), wanted.astype("f8"), CLOSE, CLOSE, equal_nan=True))
    return bool(np.array_equal(made, wanted, equal_nan=made.dtype.kind == "f"))


class Call:
    """A chain ready to run: `launch(inputs, outputs, numbers)` reads the one and writes the other, as they lie.

    `scalars`: NumPy's, in the order of the chain's; None for those that come with each call.
    """

    __slots__ = ("_before", "_block", "_grid", "_kernel", "_scalars", "_types", "_whole", "chain", "sp", "xp")

    def __init__(self, chain: Chain, space: Space, scalars: Sequence[Any], kernel: Any, xp: Any, sp: Any) -> None:
        """`kernel`: one of `Kernels`, or None for array code."""
        self.chain, self.xp, self.sp = chain, xp, sp
        self._kernel = kernel
        self._scalars = list(scalars)
        self._types = [(i, code) for i, (x, code) in enumerate(zip(scalars, chain.scalars, strict=True)) if x is None]
        self._before = tuple(space.numbers())
        self._whole = (*scalars, *self._before)
        self._grid, self._block = (max(1, min(-(-space.n // THREADS), MOST_BLOCKS)),), (THREADS,)

    def plain(self) -> Call:
        """The same by array code, whatever lies where."""
        made = copy(self)
        made._kernel = None
        return made

    def launch(self, inputs: Sequence[Array], outputs: Sequence[Array], numbers: Sequence[float] = ()) -> None:
        scalars = self._scalars
        for (i, code), x in zip(self._types, numbers, strict=True):
            scalars[i] = scalar(x, code)
        if self._kernel is not None:
            rest = (*scalars, *self._before) if numbers else self._whole
            self._kernel(self._grid, self._block, (*inputs, *outputs, *rest))
            return
        values = values_of(self.chain, self.xp, self.sp, inputs, [x.item() for x in scalars])
        for (at, _), target in zip(self.chain.outputs, outputs, strict=True):
            target[...] = values[at]


__all__ = ["Call", "Kernels", "Space", "values_of"]
