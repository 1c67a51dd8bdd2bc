"""Where the stand-in's arrays lie: allocations, pointers into them, and the flags of a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Host = np.ndarray[Any, Any]

# What CuPy has kernels for, by NumPy's characters. bfloat16 travels as uint16 bits.
DTYPES = frozenset("?bBhHiIlLqQefdFD")


def supported(dtype: Any) -> np.dtype[Any]:
    """The dtype, if CuPy has kernels for it; ValueError otherwise."""
    d: np.dtype[Any] = np.dtype(dtype)
    if d.char not in DTYPES or not d.isnative:
        raise ValueError(f"Unsupported dtype {d}")
    return d


def root(array: Host) -> Host:
    """The array that owns the memory: the end of the chain of bases."""
    base = array.base
    while base is not None:
        if isinstance(base, np.ndarray):
            array = base
        # as_strided and broadcast_to put helper objects between; they too have a base.
        base = getattr(base, "base", None)
    return array


def address(array: Host) -> int:
    """Where the first element lies."""
    return int(array.__array_interface__["data"][0])


class Memory:
    """An allocation. Two of them are equal if they are the same memory."""

    __slots__ = ("_root",)

    device_id = 0

    def __init__(self, owner: Host) -> None:
        self._root = owner

    @property
    def ptr(self) -> int:
        return address(self._root)

    @property
    def size(self) -> int:
        return self._root.nbytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Memory) and self._root is other._root

    def __hash__(self) -> int:
        return id(self._root)


class MemoryPointer:
    """A place in an allocation: `a.data + 16` is 16 bytes further. What `ndarray(memptr=...)` builds views on."""

    __slots__ = ("_offset", "mem")

    device_id = 0

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem, self._offset = mem, offset

    @property
    def ptr(self) -> int:
        return self.mem.ptr + self._offset

    def __add__(self, offset: int) -> MemoryPointer:
        if type(offset) is not int:
            raise TypeError(f"a MemoryPointer moves by an int of bytes, not {type(offset).__name__}")
        return MemoryPointer(self.mem, self._offset + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def __int__(self) -> int:
        return self.ptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryPointer) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def array(self, shape: Sequence[int], dtype: np.dtype[Any], strides: Sequence[int] | None, order: Any) -> Host:
        """A NumPy array on this memory. ValueError where it would reach outside; CuPy would read what lies there."""
        owner = self.mem._root
        if 0 in shape:  # reads nothing, so it may point anywhere; NumPy still checks the offset
            return np.ndarray(shape, dtype, strides=strides, order=order)
        if not owner.flags.c_contiguous:  # dense, but in another order: the same bytes seen in memory order
            owner = owner.transpose(sorted(range(owner.ndim), key=lambda i: -owner.strides[i]))
        return np.ndarray(shape, dtype, owner, self._offset, strides, order)


class Flags:
    """The three flags CuPy has, by attribute or by NumPy's upper-case name."""

    __slots__ = ("c_contiguous", "f_contiguous", "owndata")

    def __init__(self, c_contiguous: bool, f_contiguous: bool, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = c_contiguous, f_contiguous, owndata

    @property
    def fnc(self) -> bool:
        return self.f_contiguous and not self.c_contiguous

    @property
    def forc(self) -> bool:
        return self.f_contiguous or self.c_contiguous

    def __getitem__(self, name: str) -> bool:
        if name not in ("C_CONTIGUOUS", "F_CONTIGUOUS", "OWNDATA"):
            raise KeyError(f"{name} is not defined for cupy.ndarray.flags")
        return bool(getattr(self, name.lower()))

    def __repr__(self) -> str:
        return "\n".join(f"  {name} : {self[name]}" for name in ("C_CONTIGUOUS", "F_CONTIGUOUS", "OWNDATA"))


def overlaps_itself(array: Host) -> bool:
    """Whether two elements share memory, as in a broadcast view: writing there has no defined result on a GPU."""
    repeats = any(stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True))
    return repeats and array.size > 0


def poison(array: Host) -> Host:
    """Fill fresh memory with something that shows: reading it before writing is an error NumPy often forgives."""
    kind = array.dtype.kind
    array.fill(np.nan if kind in "fc" else True if kind == "b" else np.iinfo(array.dtype).max - 1)
    return array
