"""What several families share: refusals in PyTorch's words, checked numbers, and memory order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np

from engine.carriers import NUMBERS, K, blank_like, categories
from engine.declare import Declared
from engine.dtypes import BOOL, COMPLEX, DTYPES, FLOAT, DType, cast_scalar, result_type, scalar_dtype, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, KernelLacksDtype, Param
from engine.metas import broadcast
from engine.op import REGISTRY, Spec
from engine.shapes import iterated_strides

# ---------------------------------------------------------------- dtypes


def joint(k: K, category: str, *operands: Any) -> tuple[DType, DType]:
    """(compute, result) of these operands in a category: for operations whose category depends on a parameter."""
    default = k.default_dtype
    typed = [
        (x.dtype, 2 if x.shape else 1) if type(x) is Spec else (scalar_dtype(x, default), 0)
        for x in operands
        if x is not None
    ]
    return categories[category](result_type(typed, default), default)


def not_implemented(kernel: str, d: DType) -> KernelLacksDtype:
    """PyTorch's refusal where a kernel lacks a dtype; `kernel` is the name that PyTorch gives it on the CPU."""
    hint = None
    if d.category < FLOAT:
        hint = Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=d.name)
    return KernelLacksDtype(f"\"{kernel}\" not implemented for '{scalar_type(d)}'", hint=hint)


def lacking(
    kernel: str, *refused: int, instead: Mapping[int, str] | None = None, numbers: str = ""
) -> Callable[..., Spec]:
    """The meta of an elementwise operation that some categories of dtype are refused to.

    `instead` has PyTorch's words for a category where they are other than that the kernel lacks the dtype. `numbers`:
    Python numbers after the first operand must fit the dtype that is computed in ("wide"), or the operand's ("own").
    """
    words = instead or {}

    def meta(k: K, *args: Any) -> Spec:
        d = k.dtype
        if d.category in words:
            raise DtypeMismatch(words[d.category], code="dtype-not-implemented")
        made = broadcast(k, *args)
        if d.category in refused:
            raise not_implemented(kernel, d)
        if numbers:
            for value in args[1:]:
                if type(value) in NUMBERS:
                    fitting(value, d.compute if numbers == "wide" else d)
        return made

    return meta


def full_precision(kernel: str) -> Callable[..., Spec]:
    """The meta of an elementwise function that PyTorch has in float32 and float64 alone."""
    general = lacking(kernel, COMPLEX)

    def meta(k: K, *args: Any) -> Spec:
        made = general(k, *args)
        if k.dtype.reduced:
            raise not_implemented(kernel, k.dtype)
        return made

    return meta


# ---------------------------------------------------------------- numbers

# What PyTorch calls the C++ types in its messages about numbers that do not fit.
_CPP = {
    "bool": "bool",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int",
    "int64": "int64_t",
    "float16": "c10::Half",
    "bfloat16": "c10::BFloat16",
    "float32": "float",
    "float64": "double",
    "complex64": "c10::complex<float>",
    "complex128": "c10::complex<double>",
}
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38}


def fitting(value: complex, d: DType, param: str = "value") -> Any:
    """A Python number as C++ converts it to `d`. Raises Invalid where PyTorch finds that it does not fit.

    Negative integers may wrap around in uint8; an infinity fits every floating dtype.
    """
    if not _fits(value, d):
        raise overflow(d, param)
    return cast_scalar(value, d)


def overflow(d: DType, param: str = "value") -> Invalid:
    """PyTorch's refusal of a number that does not fit a dtype."""
    return Invalid(
        f"value cannot be converted to type {_CPP[d.name]} without overflow", code="number-overflow", param=param
    )


def _fits(value: complex, d: DType) -> bool:
    if d.category == BOOL:
        return True
    if d.category == COMPLEX:
        part = DTYPES["float32" if d.name == "complex64" else "float64"]
        return _fits(value.real, part) and _fits(value.imag, part)
    if type(value) is complex:
        if value.imag != 0:
            return False
        value = value.real
    if d.category == FLOAT:
        limit = _LARGEST.get(d.name)
        return limit is None or not isfinite(value) or abs(value) <= limit  # type: ignore[arg-type]
    bits = 8 * d.itemsize
    if d.name == "uint8":
        low = -255 if type(value) is not float else 0
        return low <= value <= 255  # type: ignore[operator]
    return -(1 << (bits - 1)) <= value <= (1 << (bits - 1)) - 1  # type: ignore[operator]


def number(value: complex) -> str:
    """A Python number as PyTorch's C++ messages show it."""
    return f"{value:g}" if type(value) is float else str(value)


def times(factor: complex, x: Any) -> Any:
    """`x`, an array or a number, times a parameter, in the dtype of `x`; nothing is done where the factor is 1."""
    if factor == 1:
        return x
    if type(x) in NUMBERS:
        return x * factor
    kind = x.dtype.kind
    if kind == "b":
        return x & bool(factor)
    if kind in "iu":
        factor = cast_scalar(factor, DTYPES[x.dtype.name])
    return x * factor


def conjugate(F: Any, x: Any) -> Any:
    """The conjugate of an operand that may be a Python number, in a rule."""
    return x.conjugate() if type(x) in NUMBERS else F.conj(x)


# ---------------------------------------------------------------- blocks and selection

# Elements that are worked on at once where a function takes several passes: its temporaries stay in the cache.
BLOCK = 1 << 16


def in_blocks(k: K, function: Callable[..., None], arrays: Sequence[Any], out: Any = None, compiled: str = "") -> Any:
    """`function(xp, *arrays, out)`, which writes `out` element by element, run block by block where that is faster.

    `compiled` names the compiled kernel that does the same in one pass, where there is one. The arrays have one shape
    and the dtype of the result. `out` may be one of them, so the function must not write into it before it has read
    what it needs.
    """
    first = arrays[0]
    if out is None:
        out = k.xp.empty_like(first, order="C" if 0 in first.strides else "K")
    if not first.ndim:  # so that temporaries are arrays: NumPy makes scalars of no dimensions
        function(k.xp, *[a.reshape(1) for a in (*arrays, out)])
        return out
    if compiled and k.backend.elements(compiled, arrays, out):
        return out
    if first.size <= 2 * BLOCK or k.backend.kind != "cpu" or not all(a.flags.c_contiguous for a in (*arrays, out)):
        function(k.xp, *arrays, out)
        return out
    flat = [a.reshape(-1) for a in (*arrays, out)]
    for start in range(0, first.size, BLOCK):
        function(k.xp, *[a[start : start + BLOCK] for a in flat])
    return out


def elements(k: K, name: str, *arrays: Any, numbers: Sequence[float] = ()) -> Any:
    """What the compiled kernel of this name makes of arrays of one shape; None where there is none for them."""
    first = arrays[0]
    if not k.backend.kernels or any(a.shape != first.shape for a in arrays):
        return None
    made = k.xp.empty_like(first)
    return made if k.backend.elements(name, arrays, made, *numbers) else None


class _Naming(np.ndarray[Any, Any]):
    """An array that answers an operation with the ufunc behind it."""

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> Any:
        return ufunc


# The ufunc behind `clip`. NumPy does not name it, and `clip` itself costs 3 µs more.
_CLIP: Any = np.zeros(1).view(_Naming).clip(0, 1)


def bounded(xp: Any, x: Any, low: float = -inf, high: float = inf, out: Any = None) -> Any:
    """x in [low, high], low <= high; NaN stays NaN.

    Between an array and a number NumPy's `maximum` and `minimum` cost four times as much as its `clip`, which also
    keeps the sign of a zero that is a bound, as PyTorch does.
    """
    if xp is np and x.dtype.kind == "f":
        return _CLIP(x, low, high, out=out)
    if low == -inf:
        return xp.minimum(x, high, out=out)
    raised = xp.maximum(x, low, out=out)
    return raised if high == inf else xp.minimum(raised, high, out=raised if raised.ndim else out)


# A dtype's `name` is made anew at each question, which costs 2 µs: so dtypes are looked up themselves.
_BITS = {
    DTYPES[name].np: bits
    for name, bits in (("float32", "int32"), ("float64", "int64"), ("int32", "int32"), ("int64", "int64"))
}


def select(k: K, mask: Any, a: Any, b: Any, masked: bool = False) -> Any:
    """a where mask, else b, with broadcasting; numbers fit the dtype of the arrays.

    NumPy's `where` branches at each element, which costs five times as much as moving bits does.
    """
    xp = k.xp
    x = b if type(a) in NUMBERS else a
    if (
        k.backend.kind != "cpu"
        or mask.size < 1024
        or type(x) in NUMBERS
        or x.shape != mask.shape
        or (masked and not (mask.flags.c_contiguous and x.flags.c_contiguous))
        or x.dtype not in _BITS
    ):
        return either(xp, mask, a, b, masked)
    if type(b) in NUMBERS and b == 0:
        return _kept(k, a, mask)
    if type(a) in NUMBERS and a == 0:
        return _kept(k, b, ~mask)
    if type(a) in NUMBERS or type(b) in NUMBERS or a.shape != b.shape or a.dtype != b.dtype:
        return either(xp, mask, a, b, masked)
    return in_blocks(k, selected, (mask, a, b), xp.empty_like(a))


def either(xp: Any, mask: Any, a: Any, b: Any, masked: bool = False) -> Any:
    """`where`, in the layout of its operands: NumPy's result is always in row-major order.

    `masked`: the mask counts as the first of them, as in PyTorch's `where`.
    """
    made = xp.where(mask, a, b)
    if made.ndim > 1:
        for x in (mask, a, b) if masked else (a, b):
            if type(x) not in NUMBERS and x.shape == made.shape:
                if not x.flags.c_contiguous and 0 not in x.strides:
                    kept = xp.empty_like(x, dtype=made.dtype)
                    kept[...] = made
                    return kept
                break
    return made


def _bits(x: Any) -> Any:
    return x.view(_BITS[x.dtype])


def selected(xp: Any, mask: Any, a: Any, b: Any, out: Any) -> None:
    """out = a where mask, else b, by moving bits."""
    bits, other = _bits(out), _bits(b)
    wide = xp.empty_like(bits)
    xp.copyto(wide, mask)  # by itself: a product that converts on the way takes longer than both
    xp.bitwise_xor(_bits(a), other, out=bits)
    xp.multiply(bits, wide, out=bits)
    xp.bitwise_xor(bits, other, out=bits)


def _kept(k: K, x: Any, mask: Any) -> Any:
    """x where mask, else 0: its bits, times 1 or 0."""
    bits = k.xp.empty_like(x, dtype=_BITS[x.dtype], order="C" if 0 in x.strides else "K")
    return in_blocks(k, _masked, (x, mask), bits).view(x.dtype)


def _masked(xp: Any, x: Any, mask: Any, bits: Any) -> None:
    xp.copyto(bits, mask)
    xp.multiply(bits, _bits(x), out=bits)


# ---------------------------------------------------------------- memory order


def memory_order(array: Any) -> Sequence[int]:
    """The dimensions from the outermost in memory to the innermost: the order in which PyTorch walks over it."""
    strides = array.strides
    if len({*strides, 0}) <= array.ndim:  # expanded
        strides = iterated_strides(array.shape, [(array.shape, strides)])
    return sorted(range(array.ndim), key=lambda i: -abs(strides[i]))


def laid_out(k: K, values: Any, like: Any) -> Any:
    """Host values, one-dimensional and in memory order, as a device array with the shape and layout of `like`.

    `like` may be on another device; then only its strides are looked at.
    """
    flat = k.from_host(values)
    if like.flags.c_contiguous:
        return flat.reshape(like.shape)
    order = list(memory_order(like))
    placed = flat.reshape([like.shape[i] for i in order]).transpose([order.index(i) for i in range(like.ndim)])
    if type(like) is not k.backend.ndarray:
        return placed
    made = blank_like(k.xp, like, flat.dtype)
    made[...] = placed
    return made


# ---------------------------------------------------------------- declaring


def publish_inplace(declared: Declared, name: str) -> None:
    """Makes the in-place form of an internal operation public as `name`: PyTorch has `zero_`, and no `zero`."""
    made = declared.op
    twin = REGISTRY.pop(made.name + "_")
    twin.name, twin.internal, twin.doc = name, False, made.doc
    REGISTRY[name] = twin


def scalar_or_tensor(name: str, scalar: int, tensor: int, at: int = 1) -> Any:
    """torch's grad_fn where it says whether the operand at a position was a number."""

    def node(*args: Any) -> str:
        return f"{name}Backward{tensor if type(args[at]) is Spec else scalar}"

    return node


def put(made: Any, out: Any) -> Any:
    """A kernel's result, written into `out` where there is one."""
    if out is None:
        return made
    out[...] = made
    return out


__all__ = [
    "bounded",
    "conjugate",
    "either",
    "elements",
    "fitting",
    "full_precision",
    "in_blocks",
    "joint",
    "lacking",
    "laid_out",
    "memory_order",
    "not_implemented",
    "number",
    "overflow",
    "publish_inplace",
    "put",
    "scalar_or_tensor",
    "select",
    "selected",
    "times",
]
