"""Functions of CuPy's top level that NumPy's of the same name would not stand for: borders, creation, selection, order.

Each has CuPy's parameters; `Function` has bound and checked them before these run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.simulated import indexing
from engine.simulated.array import (
    CALLS,
    adopt,
    deliver,
    host_of,
    ndarray,
    plain,
    quiet,
    scalar_or_host,
    view_of,
    wrap,
)
from engine.simulated.functions import Function, rewrap
from engine.simulated.memory import Host, overlaps_itself, poison, supported
from engine.simulated.names import parameters
from engine.simulated.ufuncs import HELPERS, cast, compute

# ---------------------------------------------------------------- the borders


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False
) -> ndarray:
    """A host array, a nested list of Python numbers or a scalar brought to the device; a device array as it is."""
    if type(a) is ndarray:
        d = a.dtype if dtype is None else supported(dtype)
        if copy is False and d != a.dtype:
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        return adopt(quiet(a._array.astype, (d,), {"order": order or "K", "copy": bool(copy)}), (a,))
    if copy is False:
        raise ValueError("Unable to avoid copy: the device's memory is not the host's")
    host = np.array(a, dtype=None if dtype is None else supported(dtype), order=order or "K")
    supported(host.dtype)
    if not (host.flags.c_contiguous or host.flags.f_contiguous):
        host = np.array(host, order="C")
    return wrap(host)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    """`asarray` that copies unless told otherwise."""
    if subok:
        raise NotImplementedError("subok")
    result = asarray(obj, dtype, order, copy=copy if type(obj) is ndarray else None)
    if ndmin > result.ndim:
        return view_of(result._array.reshape((1,) * (ndmin - result.ndim) + result.shape), result)
    return result


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    """C order, copied where needed. A 0-d array becomes one of shape (1,), as NumPy's does."""
    source = host_of("cupy.ascontiguousarray", a)
    return adopt(np.ascontiguousarray(source, None if dtype is None else supported(dtype)), (a,))


def asfortranarray(a: ndarray, dtype: Any = None) -> ndarray:
    """Fortran order, copied where needed."""
    source = host_of("cupy.asfortranarray", a)
    return adopt(np.asfortranarray(np.atleast_1d(source), None if dtype is None else supported(dtype)), (a,))


def asnumpy(a: Any, stream: None = None, order: Any = "C", out: Host | None = None, *, blocking: bool = True) -> Host:
    """A copy in host memory; what is there already stays as it is."""
    if type(a) is ndarray:
        return a.get(order=order, out=out)
    return np.asarray(a, order=order)


def copy(a: ndarray, order: Any = "K") -> ndarray:
    """A copy that keeps the memory order as closely as possible; the method `a.copy()` makes C order."""
    return wrap(host_of("cupy.copy", a).copy(order))


def astype(x: ndarray, dtype: Any, *, copy: bool = True) -> ndarray:
    """`x.astype(dtype, copy=copy)`."""
    host_of("cupy.astype", x)
    return x.astype(dtype, copy=copy)


# ---------------------------------------------------------------- creation


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    """Memory nobody has written: full of NaN, True or a large integer here, so that reading it shows."""
    plain("cupy.empty", shape)
    return wrap(poison(np.empty(shape, supported(dtype), order)))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> ndarray:
    """A constant, in the dtype of the value if none is given."""
    plain("cupy.full", shape)
    value = scalar_or_host("cupy.full", fill_value)
    d = np.asarray(value).dtype if dtype is None else supported(dtype)
    return wrap(quiet(np.full, (shape, value, d, order), {}))


def _like(name: str, make: Callable[..., Host]) -> Callable[..., ndarray]:
    first = parameters("cupy", name).positional[0]

    def like(dtype: Any = None, order: Any = "K", subok: None = None, shape: Any = None, **given: Any) -> ndarray:
        source = host_of(f"cupy.{name}", given[first])
        if subok is not None:
            raise TypeError("subok is not supported yet")
        plain(f"cupy.{name}", shape)
        if shape == ():
            # CuPy takes an empty shape for none at all and answers with the prototype's.
            raise ValueError(f"cupy.{name}(shape=()) ignores the shape; use shape-taking functions for 0-d arrays")
        value = [scalar_or_host(f"cupy.{name}", given["fill_value"])] if "fill_value" in given else []
        d = None if dtype is None else supported(dtype)
        return wrap(quiet(make, (source, *value), {"dtype": d, "order": order, "shape": shape}))

    return like


def _empty_like(source: Host, **options: Any) -> Host:
    return poison(np.empty_like(source, **options))


def diag(v: ndarray, k: int = 0) -> ndarray:
    """A matrix with `v` on its diagonal, or a copy of the diagonal of `v`."""
    return wrap(np.array(np.diag(host_of("cupy.diag", v), k)))


def as_strided(x: ndarray, shape: Sequence[int] | None = None, strides: Sequence[int] | None = None) -> ndarray:
    """A view by shape and strides in bytes, without a base, as CuPy makes it. It may not reach outside the memory."""
    host_of("as_strided", x)
    shape = x.shape if shape is None else tuple(shape)
    strides = x.strides if strides is None else tuple(strides)
    plain("as_strided", (shape, strides))
    return wrap(x.data.array(shape, x.dtype, strides, "C"))


def sliding_window_view(
    x: ndarray, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> ndarray:
    """Windows along the axes as a view; it cannot be written to."""
    if writeable:
        raise NotImplementedError("Writeable views are not supported.")
    plain("sliding_window_view", (window_shape, axis))
    source = host_of("sliding_window_view", x)
    return adopt(np.lib.stride_tricks.sliding_window_view(source, window_shape, axis), (x,))


# ---------------------------------------------------------------- ufuncs without a public name


def where(condition: ndarray, x: Any = None, y: Any = None) -> Any:
    """x where the condition holds, else y; without them the places where it holds. Scalars are weak."""
    chosen = host_of("cupy.where", condition)
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return CALLS["cupy.nonzero"](condition)
    operands = [chosen.astype(np.bool_, copy=False), *(scalar_or_host("cupy.where", v) for v in (x, y))]
    return wrap(compute("where", np.where, HELPERS["where"], operands)[0])


def clip(a: ndarray, a_min: Any = None, a_max: Any = None, out: ndarray | None = None) -> ndarray:
    """Not for complex numbers; a NaN as a limit limits nothing (NumPy and PyTorch answer NaN)."""
    source = host_of("cupy.clip", a)
    limits: list[Any] = []
    for limit, low in ((a_min, True), (a_max, False)):
        if limit is not None:
            limits.append(scalar_or_host("cupy.clip", limit))
        elif source.dtype.kind == "f":
            limits.append(np.asarray(-np.inf if low else np.inf, source.dtype))
        elif source.dtype.kind in "iu":
            info = np.iinfo(source.dtype)
            limits.append(np.asarray(info.min if low else info.max, source.dtype))
        else:
            raise TypeError(f"cupy.clip of {source.dtype} needs both limits")
    (result,) = compute("clip", _clip, HELPERS["clip"], [source, *limits])
    return wrap(result) if out is None else deliver("cupy.clip", result, out)


def _clip(x: Host, low: Host, high: Host) -> Host:
    # The kernel's own words, for NaN and for limits in the wrong order.
    return np.where(low > high, high, np.where(x < low, low, np.where(x > high, high, x)))


def angle(z: Any, deg: bool = False) -> ndarray:
    """The argument of complex numbers, 0 or pi of real ones."""
    value = scalar_or_host("cupy.angle", z)
    name = "angle_deg" if deg else "angle"
    return wrap(compute(name, lambda x: np.angle(x, deg), HELPERS[name], [value])[0])


def round_(a: ndarray, decimals: int = 0, out: ndarray | None = None) -> ndarray:
    """To nearest even; of bool it is float16."""
    source = host_of("cupy.round", a)
    if type(decimals) is not int:
        raise TypeError("decimals is an int")
    (result,) = compute("round", lambda x, _: np.round(x, decimals), HELPERS["round"], [source, decimals])
    return wrap(result) if out is None else deliver("cupy.round", result, out)


# ---------------------------------------------------------------- order


def _stable(kind: str | None) -> None:
    if kind is not None and kind != "stable":
        raise ValueError("kind can only be None or 'stable'")


def sort(a: ndarray, axis: int | None = -1, kind: str | None = None) -> ndarray:
    """Sorting is always stable in CuPy."""
    _stable(kind)
    return wrap(np.asarray(np.sort(host_of("cupy.sort", a), axis, kind="stable"), order="C"))


def argsort(a: ndarray, axis: int | None = -1, kind: str | None = None) -> ndarray:
    """Always stable; a 0-d array has one place, so the result has shape (1,)."""
    _stable(kind)
    source = np.atleast_1d(host_of("cupy.argsort", a))
    return wrap(np.asarray(np.argsort(source, axis, kind="stable"), order="C"))


def partition(a: ndarray, kth: Any, axis: int | None = -1) -> ndarray:
    """Here, and in CuPy for short axes, everything is sorted; only the k-th place is promised."""
    plain("cupy.partition", kth)
    source = host_of("cupy.partition", a)
    _kth_within(kth, source.size if axis is None else source.shape[axis])
    return sort(a, axis)


def argpartition(a: ndarray, kth: Any, axis: int | None = -1) -> ndarray:
    """As `partition`, the places."""
    plain("cupy.argpartition", kth)
    source = host_of("cupy.argpartition", a)
    _kth_within(kth, source.size if axis is None else source.shape[axis])
    return argsort(a, axis)


def _kth_within(kth: Any, length: int) -> None:
    for k in (kth,) if isinstance(kth, int) else kth:
        if not -length <= k < length:
            raise ValueError(f"kth(={k}) out of bounds {length}")


def sort_in_place(a: ndarray, axis: int = -1, kind: str | None = None) -> None:
    """`a.sort()`: NotImplementedError for an array that is not C-contiguous."""
    _stable(kind)
    if a.ndim == 0:
        raise np.exceptions.AxisError("Sorting arrays with the rank of zero is not supported")
    if not a.flags.c_contiguous:
        raise NotImplementedError("Sorting non-contiguous array is not supported.")
    a._array.sort(axis, kind="stable")


def partition_in_place(a: ndarray, kth: Any, axis: int = -1) -> None:
    """`a.partition(kth)`."""
    plain("cupy.ndarray.partition", kth)
    sort_in_place(a, axis)


# ---------------------------------------------------------------- assignment


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: ndarray | None = None) -> None:
    """`dst[where] = src` under a casting rule."""
    target, source = host_of("cupy.copyto", dst), scalar_or_host("cupy.copyto", src)
    if overlaps_itself(target):
        raise ValueError("cupy.copyto: the destination overlaps itself")
    mask = True if where is None else host_of("cupy.copyto", where)
    quiet(np.copyto, (target, source, casting, mask), {})


def fill_diagonal(a: ndarray, val: Any, wrap: bool = False) -> None:
    """Write on the main diagonal."""
    np.fill_diagonal(host_of("cupy.fill_diagonal", a), scalar_or_host("cupy.fill_diagonal", val), wrap)


def place(arr: ndarray, mask: ndarray, vals: ndarray) -> None:
    """Write `vals`, repeating, where the mask holds."""
    target, chosen, values = (host_of("cupy.place", x) for x in (arr, mask, vals))
    if target.size != chosen.size:
        raise ValueError("Mask and data must be the same size.")
    np.place(target, chosen, values)


def putmask(a: ndarray, mask: ndarray, values: Any) -> None:
    """Unlike NumPy's, only safe casts."""
    target, chosen = host_of("cupy.putmask", a), host_of("cupy.putmask", mask)
    new = scalar_or_host("cupy.putmask", values)
    if target.shape != chosen.shape:
        raise ValueError("mask and data must be the same size")
    if isinstance(new, np.ndarray) and not np.can_cast(new.dtype, target.dtype):
        raise TypeError(f"Cannot cast array data from {new.dtype} to {target.dtype} according to the rule 'safe'")
    np.putmask(target, chosen, new)


# ---------------------------------------------------------------- shape and memory


def ravel(a: ndarray, order: Any = "C") -> ndarray:
    """One axis; a view if the memory allows."""
    source = host_of("cupy.ravel", a)
    return adopt(np.ascontiguousarray(np.ravel(source, order)), (a,))


def reshape(a: ndarray, newshape: Any, order: Any = "C", *, copy: bool | None = None) -> ndarray:
    """`a.reshape(newshape)`; NumPy calls the parameter `shape`."""
    host_of("cupy.reshape", a)
    return a.reshape(newshape, order=order, copy=copy)


def broadcast_to(array: ndarray, shape: Any) -> ndarray:
    """A view whose elements share memory; writing to it is refused, where CuPy lets threads race."""
    plain("cupy.broadcast_to", shape)
    return view_of(np.broadcast_to(host_of("cupy.broadcast_to", array), shape), array)


def broadcast_arrays(*args: ndarray) -> tuple[ndarray, ...]:
    """Views of one shape, as `broadcast_to` makes them."""
    shape = np.broadcast_shapes(*[host_of("cupy.broadcast_arrays", a).shape for a in args])
    return tuple(broadcast_to(a, shape) for a in args)


def real(val: ndarray) -> ndarray:
    """`val.real`: of a real array the array itself."""
    host_of("cupy.real", val)
    return val.real


def imag(val: ndarray) -> ndarray:
    """`val.imag`: of a real array new zeros."""
    host_of("cupy.imag", val)
    return val.imag


def flatten(a: ndarray, order: Any = "C") -> ndarray:
    """One axis, always a copy."""
    return wrap(a._array.flatten(order))


def conj(a: ndarray) -> ndarray:
    """`a.conj()`: a real array answers with itself, not a copy."""
    return CALLS["cupy.conjugate"](a) if a.dtype.kind == "c" else a


def shape(a: ndarray) -> tuple[int, ...]:
    """`a.shape`."""
    return tuple(host_of("cupy.shape", a).shape)


def size(a: ndarray, axis: int | None = None) -> int:
    """The number of elements, or of those along an axis, as an int."""
    return int(np.size(host_of("cupy.size", a), axis))


def ndim(a: ndarray) -> int:
    """`a.ndim`."""
    return host_of("cupy.ndim", a).ndim


def may_share_memory(a: ndarray, b: ndarray, max_work: None = None) -> bool:
    """Whether the bounds overlap."""
    return np.may_share_memory(host_of("cupy.may_share_memory", a), host_of("cupy.may_share_memory", b))


def shares_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    """Whether an element is shared; CuPy answers this by sorting addresses on the device."""
    return np.shares_memory(host_of("cupy.shares_memory", a), host_of("cupy.shares_memory", b))


# ---------------------------------------------------------------- types


def _type_of(where: str, value: Any) -> Any:
    return value.dtype if type(value) is ndarray else plain(where, value)


def result_type(*operands: Any) -> np.dtype[Any]:
    """The dtype of a ufunc of these; arrays count by dtype alone, also 0-d ones."""
    return np.result_type(*[_type_of("cupy.result_type", value) for value in operands])


def common_type(*arrays: ndarray) -> Any:
    """The inexact type of arrays."""
    return np.common_type(*[host_of("cupy.common_type", a) for a in arrays])


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """NumPy's rule."""
    return np.can_cast(_type_of("cupy.can_cast", from_), to, casting)


def min_scalar_type(a: Any) -> np.dtype[Any]:
    """NumPy's answer."""
    return np.min_scalar_type(host_of("cupy.min_scalar_type", a) if type(a) is ndarray else a)


def iscomplexobj(x: ndarray) -> bool:
    """Whether the dtype is complex."""
    return bool(host_of("cupy.iscomplexobj", x).dtype.kind == "c")


def isrealobj(x: ndarray) -> bool:
    """Whether the dtype is not complex."""
    return bool(host_of("cupy.isrealobj", x).dtype.kind != "c")


def isfortran(a: ndarray) -> bool:
    """Whether it is in Fortran order and not in C order."""
    return host_of("cupy.isfortran", a).flags.fnc


def get_array_module(*args: Any) -> Any:
    """The stand-in's module if a device array is among the arguments, else NumPy."""
    return CALLS["module"]() if any(type(a) is ndarray for a in args) else np


# ---------------------------------------------------------------- einsum


def einsum(*operands: Any, dtype: Any = None, optimize: Any = False) -> Any:
    """Only the form with a string first; no `out=`, as in CuPy."""
    if not operands or not isinstance(operands[0], str):
        raise TypeError("einsum wants a string first here")
    arrays = [host_of("cupy.einsum", x) for x in operands[1:]]
    if dtype is not None:
        arrays = [cast(a, supported(dtype), "unsafe", "einsum") for a in arrays]
    result = quiet(np.einsum, (operands[0], *arrays), {"optimize": optimize})
    return rewrap(result, list(operands[1:]))


ROUTINES: dict[str, Callable[..., Any]] = {
    "angle": angle,
    "argpartition": argpartition,
    "argsort": argsort,
    "around": round_,
    "array": array,
    "asanyarray": asarray,
    "asarray": asarray,
    "ascontiguousarray": ascontiguousarray,
    "asfortranarray": asfortranarray,
    "asnumpy": asnumpy,
    "astype": astype,
    "broadcast_arrays": broadcast_arrays,
    "broadcast_to": broadcast_to,
    "can_cast": can_cast,
    "clip": clip,
    "common_type": common_type,
    "copy": copy,
    "copyto": copyto,
    "diag": diag,
    "einsum": einsum,
    "empty": empty,
    "empty_like": _like("empty_like", _empty_like),
    "fill_diagonal": fill_diagonal,
    "full": full,
    "full_like": _like("full_like", np.full_like),
    "get_array_module": get_array_module,
    "imag": imag,
    "iscomplexobj": iscomplexobj,
    "isdtype": np.isdtype,
    "isfortran": isfortran,
    "isrealobj": isrealobj,
    "isscalar": np.isscalar,
    "issubdtype": np.issubdtype,
    "may_share_memory": may_share_memory,
    "min_scalar_type": min_scalar_type,
    "ndim": ndim,
    "ones_like": _like("ones_like", np.ones_like),
    "partition": partition,
    "place": place,
    "promote_types": np.promote_types,
    "put": indexing.put,
    "put_along_axis": indexing.put_along_axis,
    "putmask": putmask,
    "ravel": ravel,
    "real": real,
    "reshape": reshape,
    "result_type": result_type,
    "round": round_,
    "shape": shape,
    "shares_memory": shares_memory,
    "size": size,
    "sort": sort,
    "take": indexing.take,
    "take_along_axis": indexing.take_along_axis,
    "where": where,
    "zeros_like": _like("zeros_like", np.zeros_like),
}


def spread(function: Callable[..., Any], only_positional: int, order: tuple[str, ...]) -> Callable[..., Any]:
    """A function of keyword arguments as one of a bound call: what is positional only comes first."""

    def run(bound: dict[str, Any]) -> Any:
        leading = [bound[name] for name in order[:only_positional] if name in bound]
        named = {k: v for k, v in bound.items() if k != "*" and k not in order[:only_positional]}
        return function(*leading, *bound.get("*", ()), **named)

    return run


def routine(module: str, name: str, function: Callable[..., Any]) -> Function:
    """A hand-written function under CuPy's parameters."""
    signature = parameters(module, name)
    by_position = 2 if name in ("promote_types", "astype") else 1 if name in ("isscalar", "can_cast") else 0
    return Function(signature, spread(function, by_position, signature.positional), function.__doc__)
