"""Matrices changed by outer products of a column and a row, by BLAS where NumPy's broadcasting would be slower.

NumPy pays some 30 ns for each row that a column is broadcast to, and walks at half its speed along a broadcast row.
"""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array

# Of fewer elements the call of BLAS would cost more than it saves.
_LARGE = 1 << 14
# Along rows as long as these broadcasting costs less than BLAS's two passes.
_LONG_SUM, _LONG_PRODUCT = 2048, 512
_LETTERS = {"f": "s", "d": "d"}


def _routine(k: K, name: str, a: Array) -> Any:
    letter = _LETTERS.get(a.dtype.char)
    if letter is None or k.backend.kind != "cpu" or a.size < _LARGE:
        return None
    return getattr(k.sp.linalg.blas, letter + name)


def add_outer(k: K, a: Array, column: Array, row: Array, factor: float = 1.0) -> None:
    """a += factor * column * row, for a C-contiguous matrix; `column` and `row` are vectors of its dtype."""
    ger = _routine(k, "ger", a)
    if ger is None:
        a += (column * factor)[:, None] * row
    else:
        ger(factor, row, column, a=a.T, overwrite_a=1)


def outer_product(k: K, column: Array, row: Array, out: Array) -> None:
    """out = column * row, for a C-contiguous matrix; what was in it does not matter."""
    gemm = _routine(k, "gemm", out)
    if gemm is None:
        k.xp.multiply(column[:, None], row, out=out)
    else:
        gemm(1.0, row[:, None], column[:, None], trans_b=1, c=out.T, overwrite_c=1)


def less_column(k: K, x: Array, column: Array, ones: Array, out: Array) -> None:
    """out = x - column, for C-contiguous matrices; `ones` is a vector as long as their rows."""
    if x.shape[1] >= _LONG_SUM or _routine(k, "ger", x) is None:
        k.xp.subtract(x, column[:, None], out=out)
        return
    out[...] = x
    add_outer(k, out, column, ones, -1.0)


def times_column(k: K, x: Array, column: Array, ones: Array, out: Array) -> None:
    """out = x * column, for C-contiguous matrices that are not the same; `ones` is a vector as long as their rows."""
    if x.shape[1] >= _LONG_PRODUCT or _routine(k, "gemm", x) is None:
        k.xp.multiply(x, column[:, None], out=out)
        return
    outer_product(k, column, ones, out)
    out *= x
