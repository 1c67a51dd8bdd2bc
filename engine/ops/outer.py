"""Matrices changed by outer products of a column and a row, by BLAS where NumPy's broadcasting would be slower.

NumPy pays some 30 ns for each row that a column is broadcast to, and walks at half its speed along a broadcast row.
"""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array

# Of fewer elements the call of BLAS would cost more than it saves.
_LARGE = 1 << 14
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


def outer_product(k: K, column: Array, row: Array, like: Array) -> Array:
    """column * row as a matrix, or something that broadcasts to it; `like` is a matrix of that size."""
    gemm = _routine(k, "gemm", like)
    if gemm is None:
        return column[:, None] * row
    return gemm(1.0, row[:, None], column[:, None], trans_b=1).T
