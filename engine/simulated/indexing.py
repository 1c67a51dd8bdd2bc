"""Indexing as CuPy does it, where that differs from NumPy.

- Integer arrays wrap: index 7 of an axis of 5 is 2, silently. (A Python int out of range is an IndexError.)
- Of several values for one place, any may win. Here the first does, where NumPy keeps the last.
- Only slices, ints, None, Ellipsis and device arrays index; CuPy would copy a list or a host array to the device.
- What is undefined on a GPU because two threads would touch one byte is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.simulated.array import (
    CALLS,
    deliver,
    host_of,
    host_value_refused,
    ndarray,
    scalar_or_host,
    view_of,
    wrap,
)
from engine.simulated.memory import Host, address, overlaps_itself
from engine.simulated.ufuncs import AT_DTYPES


def wrap_indices(indices: Host, size: int) -> Host:
    """Integer indices brought into `0 <= i < size` by wrapping around."""
    if indices.dtype.kind not in "iu":
        raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {indices.dtype})")
    if size == 0:
        if indices.size:
            raise IndexError("cannot do a non-empty take from an empty axes.")
        return indices.astype(np.int64)
    if indices.dtype == np.uint64:
        return (indices % np.uint64(size)).astype(np.int64)
    return np.remainder(indices.astype(np.int64), size)


def _checked(part: Any) -> Any:
    """One part of an index; TypeError for what is refused, device arrays unwrapped."""
    kind = type(part)
    if kind is int or part is None or part is Ellipsis:
        return part
    if kind is slice:
        for bound in (part.start, part.stop, part.step):
            if bound is not None and type(bound) is not int:
                raise TypeError(f"a slice of a device array is made of ints, not {type(bound).__name__}")
        return part
    if kind is ndarray:
        return part._array
    if isinstance(part, np.ndarray | np.generic):
        raise host_value_refused("index", part)
    raise TypeError(f"a device array is indexed by ints, slices, None, ... and device arrays, not {kind.__name__}")


def prepare(a: Host, key: Any) -> tuple[tuple[Any, ...], bool, int]:
    """An index in NumPy's terms: the parts, whether arrays are among them, and where their axes lie in the result.

    Integer arrays are wrapped; next to another array a mask becomes the integer arrays of its True places.
    """
    parts = [_checked(part) for part in (key if type(key) is tuple else (key,))]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if not arrays:
        return tuple(parts), False, 0
    consumed = sum(_axes_taken(part) for part in parts)
    if consumed > a.ndim:
        raise IndexError(f"too many indices for array: array is {a.ndim}-dimensional, but {consumed} were indexed")
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    done: list[Any] = []
    axis = position = 0  # of the array indexed, of the result
    blocks, open_block, start = 0, False, 0
    for part in parts:
        array_like = isinstance(part, int | np.ndarray)
        if array_like and not open_block:
            blocks, start = blocks + 1, position
        open_block = array_like
        taken = a.ndim - consumed if part is Ellipsis else _axes_taken(part)
        if not array_like:
            position += 1 if part is None else taken
            done.append(part)
        elif isinstance(part, int):
            done.append(part)
        elif part.dtype.kind == "b":
            if part.ndim == 0 or part.shape != a.shape[axis : axis + part.ndim]:
                raise IndexError(f"a mask of shape {part.shape} does not fit axes {axis}... of shape {a.shape}")
            done.extend([part] if len(arrays) == 1 else part.nonzero())
        else:
            done.append(wrap_indices(part, a.shape[axis]))
        axis += taken
    return tuple(done), True, start if blocks == 1 else 0


def _axes_taken(part: Any) -> int:
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


def getitem(a: ndarray, key: Any) -> ndarray:
    """A view for ints, slices, None and Ellipsis; with arrays a C-contiguous copy. 0-d results are arrays."""
    source = a._array
    parts, arrays, _ = prepare(source, key)
    if arrays:
        return wrap(np.asarray(source[parts], order="C"))
    if Ellipsis not in parts:
        parts = (*parts, Ellipsis)  # so that NumPy answers with a 0-d view instead of a scalar
    return view_of(source[parts], a)


def _refuse_races(target: Host, value: Any) -> None:
    """What two threads of a GPU would do to one byte has no defined result."""
    if overlaps_itself(target):
        raise ValueError("assignment to an array that overlaps itself, such as a broadcast view")
    if isinstance(value, np.ndarray) and value.size and np.may_share_memory(target, value):
        same = address(target) == address(value) and target.strides == value.strides
        if not same and _share(target, value):
            raise ValueError("assignment from an array that overlaps its target; copy it first")


def _share(a: Host, b: Host) -> bool:
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def setitem(a: ndarray, key: Any, value: Any) -> None:
    """Assign a device array, broadcast, or a Python scalar, cast as C does."""
    target, value = a._array, scalar_or_host("assignment", value)
    parts, arrays, start = prepare(target, key)
    with np.errstate(all="ignore"):
        if not arrays:
            view = target[parts] if Ellipsis in parts else target[(*parts, Ellipsis)]
            _refuse_races(view, value)
            view[...] = value
            return
        _refuse_races(target, value)
        integers = [part for part in parts if isinstance(part, np.ndarray) and part.dtype.kind != "b"]
        if not integers:
            target[parts] = value
            return
        parts, value = _reversed(target, parts, integers, start, value)
        target[parts] = value


def _reversed(
    target: Host, parts: tuple[Any, ...], integers: list[Host], start: int, value: Any
) -> tuple[tuple[Any, ...], Any]:
    """The same assignment with its places in reverse order, so that the first of duplicates is written last."""
    shape = np.broadcast_shapes(*[i.shape for i in integers])
    flip = (slice(None, None, -1),) * len(shape)
    # Copies, because NumPy walks a reversed view in the order of its memory.
    parts = tuple(np.broadcast_to(part, shape)[flip].copy() if isinstance(part, np.ndarray) else part for part in parts)
    if isinstance(value, np.ndarray) and value.ndim:
        value = np.broadcast_to(_squeeze_leading(value), target[parts].shape)
        value = value[(slice(None),) * start + flip].copy()
    return parts, value


def _squeeze_leading(value: Host) -> Host:
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    return np.asarray(value)


def scatter(a: ndarray, key: Any, value: Any, operation: str) -> None:
    """`cupy.add.at` and its kin: like assignment, but every duplicate counts.

    TypeError for dtypes without an atomic operation, if an integer array is in the index.
    """
    target = host_of(f"scatter {operation}", a)
    value = scalar_or_host(f"scatter {operation}", value)
    function = {
        "add": np.add,
        "sub": np.subtract,
        "max": np.maximum,
        "min": np.minimum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[operation]
    parts, arrays, _ = prepare(target, key)
    if not arrays:
        view = getitem(a, key)
        name = {"sub": "subtract", "max": "maximum", "min": "minimum"}.get(operation, operation)
        name = f"bitwise_{name}" if name in ("and", "or", "xor") else name
        CALLS[f"cupy.{name}"](view, wrap(value) if isinstance(value, np.ndarray) else value, view)
        return
    integers = any(isinstance(part, np.ndarray) and part.dtype.kind != "b" for part in parts)
    if integers and target.dtype.char not in AT_DTYPES[operation]:
        raise TypeError(f"cupy has no atomic {operation} for {target.dtype}: cast first, or use real and imag")
    _refuse_races(target, value)
    with np.errstate(all="ignore"):
        # Cast first: NumPy refuses what CuPy casts silently.
        cast = np.asarray(value).astype(target.dtype) if isinstance(value, np.ndarray) else target.dtype.type(value)
        function.at(target, parts, cast)


def take(a: ndarray, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
    """Elements along an axis; indices wrap. The index is an int or a device array, CuPy's list is refused."""
    source = host_of("cupy.take", a)
    chosen = np.asarray(indices) if type(indices) is int else host_of("cupy.take", indices)
    if axis is None:
        source, axis = source.reshape(-1), 0
    elif type(axis) is not int:
        raise TypeError("cupy.take: axis is an int")
    source = np.atleast_1d(source)
    axis = np.lib.array_utils.normalize_axis_index(axis, source.ndim)
    result = np.take(source, wrap_indices(chosen, source.shape[axis]), axis)
    result = np.asarray(result, order="C")
    return wrap(result) if out is None else deliver("cupy.take", result, out)


def put(a: ndarray, ind: Any, v: Any, mode: str = "wrap") -> None:
    """`a.flat[ind] = v`, the values repeating; `wrap` is CuPy's default, and of duplicates any may win."""
    target = host_of("cupy.put", a)
    indices = host_of("cupy.put", ind).reshape(-1)
    values = np.asarray(scalar_or_host("cupy.put", v)).astype(target.dtype).reshape(-1)
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError("clipmode not understood")
    if mode == "raise" and np.any((indices < -target.size) | (indices >= target.size)):
        raise IndexError("invalid entry in indices array")
    if not values.size or not indices.size:
        return
    _refuse_races(target, None)
    indices = np.clip(indices, 0, target.size - 1) if mode == "clip" else wrap_indices(indices, target.size)
    values = np.resize(values, indices.shape)
    target.flat[indices[::-1].copy()] = values[::-1].copy()


def _along_axis(shape: tuple[int, ...], indices: Host, axis: int) -> tuple[Host, ...]:
    """The index that picks `indices` along one axis and everything along the others."""
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    if indices.ndim != len(shape):
        raise ValueError("`indices` and `a` must have the same number of dimensions")
    others = np.ogrid[tuple(slice(n) for n in shape)]
    return tuple(indices if i == axis else others[i] for i in range(len(shape)))


def take_along_axis(a: ndarray, indices: ndarray, axis: int | None) -> ndarray:
    """`a[..., indices, ...]` matched along the other axes; indices wrap. CuPy gives `axis` no default."""
    source, chosen = host_of("cupy.take_along_axis", a), host_of("cupy.take_along_axis", indices)
    if axis is None:
        source, axis = source.reshape(-1), 0
    axis = np.lib.array_utils.normalize_axis_index(axis, source.ndim)
    index = _along_axis(source.shape, chosen, axis)
    wrapped = tuple(wrap_indices(i, n) for i, n in zip(index, source.shape, strict=True))
    return wrap(np.asarray(source[wrapped], order="C"))


def put_along_axis(arr: ndarray, indices: ndarray, values: Any, axis: int | None) -> None:
    """The assignment that belongs to `take_along_axis`; of duplicates any may win."""
    target, chosen = host_of("cupy.put_along_axis", arr), host_of("cupy.put_along_axis", indices)
    if axis is None:
        put(arr, indices, values)
        return
    axis = np.lib.array_utils.normalize_axis_index(axis, target.ndim)
    setitem(arr, tuple(map(wrap, _along_axis(target.shape, chosen, axis))), values)


CALLS["getitem"], CALLS["setitem"], CALLS["scatter"] = getitem, setitem, scatter
