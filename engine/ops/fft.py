"""Discrete Fourier transforms, as torch.fft has them: three transforms of arrays, and the functions made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from engine.carriers import K
from engine.context import HERE
from engine.declare import Array, Device, Dim, Dims, DTypeArg, Ints, Shape, composite, op
from engine.dtypes import COMPLEX, FLOAT, DType, float32, scalar_type, to_complex, to_real
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.metas import as_dtype, sized
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.samples import C, I, S, T
from engine.shapes import wrap_dim

# How a transform is scaled: not at all, by 1 / sqrt(n), or by 1 / n. These are PyTorch's numbers for them.
UNSCALED, BY_ROOT, BY_N = range(3)
_FORWARD = ("backward", "ortho", "forward")  # SciPy's words for the three
_INVERSE = ("forward", "ortho", "backward")

# ---------------------------------------------------------------- the transforms


def _ordered(array: Any, dims: Sequence[int]) -> list[int]:
    """The order of memory in the result: the other dimensions by their strides, then the transformed ones.

    It is the order in which PyTorch hands the work to its library, and it makes transformed lines contiguous.
    """
    others = [d for d in range(array.ndim) if d not in dims]
    return [*sorted(others, key=lambda d: -array.strides[d]), *dims]


def _run(array: Any, dims: Sequence[int], transform: Callable[[Any, tuple[int, ...]], Any]) -> Any:
    """`transform` along `dims`, with the result laid out in memory as `_ordered` says."""
    n = array.ndim
    order = _ordered(array, dims)
    made = transform(array.transpose(order), tuple(range(n - len(dims), n)))
    return made.transpose([order.index(d) for d in range(n)])


def _owned(k: K, made: Any) -> Any:
    """The array in memory of its own, in the order that it has."""
    if made.flags.c_contiguous:
        return made
    kept = k.xp.empty_like(made)
    kept[...] = made
    return kept


def _by_stride(array: Any, dims: Sequence[int], last: int = 0) -> list[int]:
    """The dims from the largest stride to the smallest; the `last` ones stay where they are."""
    free = len(dims) - last
    return [*sorted(dims[:free], key=lambda d: -array.strides[d]), *dims[free:]]


def _c2c_meta(k: K, input: Spec, dim: Any, normalization: int, forward: bool) -> Spec:
    return Spec(input.shape, to_complex(input.dtype))


@op(
    family="fft",
    meta=_c2c_meta,
    node="FftC2CBackward0",
    save={"input": ()},
    samples=[
        S(C(3, 4), [1], 0, True),
        S(C(3, 4), [0, 1], 2, False),
        S(C(2, 3), [1, 0], 1, True),
        S(C(0, 3), [1], 0, True),
    ],
)
def _fft_c2c(k: K, input: Array, dim: Shape, normalization: int, forward: bool) -> Array:
    """The transform of complex numbers along `dim`: sums of x exp(-2 pi i jk / n), or of the inverse sign."""
    if not input.size or not dim:
        made = k.xp.empty_like(input)
        made[...] = input
        return made
    name, norm = ("fftn", _FORWARD) if forward else ("ifftn", _INVERSE)
    transform = getattr(k.sp.fft, name)
    dims = _by_stride(input, dim)
    return _owned(k, _run(input, dims, lambda x, axes: transform(x, axes=axes, norm=norm[normalization])))


@_fft_c2c.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._fft_c2c(g, saved.dim, saved.normalization, not saved.forward)


def _r2c_meta(k: K, input: Spec, dim: Any, normalization: int, onesided: bool) -> Spec:
    if input.dtype.category != FLOAT:
        raise DtypeMismatch(
            f"Only supports floating-point dtypes, but found: {scalar_type(input.dtype)}", param="input"
        )
    sizes = list(input.shape)
    if onesided:
        sizes[dim[-1]] = sizes[dim[-1]] // 2 + 1
    return Spec(tuple(sizes), to_complex(input.dtype))


@op(
    family="fft",
    meta=_r2c_meta,
    node="FftR2CBackward0",
    save={"input": ()},
    samples=[
        S(T(3, 4), [1], 0, True),
        S(T(3, 4), [1], 1, False),
        S(T(3, 5), [0, 1], 2, True),
        S(T(4, 3), [1, 0], 0, True),
        S(T(0, 3), [1], 0, True),
    ],
)
def _fft_r2c(k: K, input: Array, dim: Shape, normalization: int, onesided: bool) -> Array:
    """The transform of real numbers along `dim`; `onesided`: of the last one only the half that determines the rest."""
    if not input.size:
        return k.xp.zeros(k.spec.shape, k.spec.dtype.np)
    norm = _FORWARD[normalization]
    dims = _by_stride(input, dim, last=1)

    def half(x: Any, axes: tuple[int, ...]) -> Any:
        return k.sp.fft.rfftn(x, axes=axes, norm=norm)

    def whole(x: Any, axes: tuple[int, ...]) -> Any:
        if len(axes) > 1:
            return k.sp.fft.fftn(x.astype(k.spec.dtype.np), axes=axes, norm=norm)
        made = half(x, axes)  # the other half mirrors it
        mirrored = made[..., (x.shape[-1] - 1) // 2 : 0 : -1]
        return k.xp.concatenate([made, k.xp.conjugate(mirrored)], axis=-1)

    return _owned(k, _run(input, dims, half if onesided else whole))


@_fft_r2c.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if not saved.onesided:
        return F.real(F._fft_c2c(g, saved.dim, saved.normalization, False))
    # The transform back counts each inner frequency twice, once for its mirror image.
    last = saved.dim[-1]
    n = saved.input.shape[last]
    return F._fft_c2r(F._scale_inner(g, last, n, 0.5), saved.dim, saved.normalization, n)


def _c2r_meta(k: K, input: Spec, dim: Any, normalization: int, last_dim_size: int) -> Spec:
    sizes = list(input.shape)
    sizes[dim[-1]] = last_dim_size
    return Spec(tuple(sizes), to_real(input.dtype))


@op(
    family="fft",
    meta=_c2r_meta,
    node="FftC2RBackward0",
    save={"input": ()},
    samples=[
        S(C(3, 3), [1], 0, 4),
        S(C(3, 3), [1], 1, 5),
        S(C(3, 2), [0, 1], 2, 3),
        S(C(3, 2), [1, 0], 0, 4),
        S(C(0, 3), [1], 0, 4),
    ],
)
def _fft_c2r(k: K, input: Array, dim: Shape, normalization: int, last_dim_size: int) -> Array:
    """The inverse transform along `dim` of one half of the frequencies, as if the other half mirrored it: real."""
    if not input.size:
        return k.xp.zeros(k.spec.shape, k.spec.dtype.np)
    fft, norm = k.sp.fft, _INVERSE[normalization]
    made = input
    if len(dim) > 1:
        dims = _by_stride(input, dim[:-1])
        made = _run(made, dims, lambda x, axes: fft.ifftn(x, axes=axes, norm=norm))
    return _owned(k, _run(made, dim[-1:], lambda x, axes: fft.irfft(x, last_dim_size, axis=axes[0], norm=norm)))


@_fft_c2r.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    made = F._fft_r2c(g, saved.dim, saved.normalization, True)
    return F._scale_inner(made, saved.dim[-1], saved.last_dim_size, 2.0)


def _inner_meta(k: K, input: Spec, dim: int, size: int, factor: float) -> Spec:
    return input


@op(family="fft", meta=_inner_meta, save={"input": ()}, samples=[S(C(2, 3), 1, 4, 2.0), S(C(3), 0, 5, 0.5)])
def _scale_inner(k: K, input: Array, dim: int, size: int, factor: float) -> Array:
    """Half a spectrum of `size` frequencies, those scaled that stand for their mirror image too."""
    made = input.copy()
    inner = made[(slice(None),) * dim + (slice(1, (size + 1) // 2),)]
    inner *= factor
    return made


@_scale_inner.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._scale_inner(g, saved.dim, saved.size, saved.factor)


# ---------------------------------------------------------------- what the functions share


def _scaling(norm: str | None, forward: bool) -> int:
    if norm is None or norm == "backward":
        return UNSCALED if forward else BY_N
    if norm == "forward":
        return BY_N if forward else UNSCALED
    if norm == "ortho":
        return BY_ROOT
    raise Invalid(f'Invalid normalization mode: "{norm}"', param="norm")


def _points(n: int, param: str = "n") -> int:
    if n < 1:
        raise ShapeMismatch(f"Invalid number of data points ({n}) specified", param=param)
    return n


def _promoted(F: Any, input: Any, complex_: bool = False) -> Any:
    """The input in the dtype of its transform: float32 or float64, or the complex one where that is asked for."""
    d = F.dtype(input)
    if d.category < FLOAT:
        d = HERE.ctx.default_dtype
    if d.reduced:
        raise DtypeMismatch(
            f"Unsupported dtype {scalar_type(d)}",
            code="dtype-not-implemented",
            hint=Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=d.name),
            param="input",
        )
    want = to_complex(d) if complex_ else d
    return input if F.dtype(input) is want else F._to_dtype(input, want)


def _resized(F: Any, input: Any, dims: Sequence[int], sizes: Sequence[int]) -> Any:
    """The input with `sizes` along `dims`: cut, or filled up with zeros, at the end."""
    shape = F.shape(input)
    before = [0] * len(shape)
    for d, n in zip(dims, sizes, strict=True):
        if n < shape[d]:
            input = F._slice(input, d, 0, n, 1)
        before[d] = max(n - shape[d], 0)
    if not any(before):
        return input
    return F.constant_pad_nd(input, [x for n in reversed(before) for x in (0, n)], 0)


def _real_only(F: Any, input: Any, words: str) -> None:
    d = F.dtype(input)
    if d.category == COMPLEX:
        raise DtypeMismatch(
            words.format(scalar_type(d)),
            hint=Hint("cast-input", Call("real", {"input": Param("input")}), have=d.name),
            param="input",
        )


def _from_real(F: Any, name: str, input: Any, n: Any, dim: int, norm: Any, forward: bool, onesided: bool) -> Any:
    _real_only(F, input, name + " expects a real input tensor, but got {}")
    x = _promoted(F, input)
    shape = F.shape(x)
    d = wrap_dim(dim, len(shape), scalar_ok=False)
    size = _points(shape[d] if n is None else n)
    if n is not None:
        x = _resized(F, x, (d,), (size,))
    made = F._fft_r2c(x, (d,), _scaling(norm, forward), onesided)
    return made if forward else F.conj(made)


def _to_real(F: Any, input: Any, n: Any, dim: int, norm: Any, forward: bool) -> Any:
    x = _promoted(F, input, complex_=True)
    shape = F.shape(x)
    d = wrap_dim(dim, len(shape), scalar_ok=False)
    size = _points(2 * (shape[d] - 1) if n is None else n)
    if n is not None:
        x = _resized(F, x, (d,), (size // 2 + 1,))
    scale = _scaling(norm, forward)
    return F._fft_c2r(F.conj(x) if forward else x, (d,), scale, size)


def _complex(F: Any, name: str, input: Any, n: Any, dim: int, norm: Any, forward: bool) -> Any:
    if F.dtype(input).category != COMPLEX:
        return _from_real(F, name, input, n, dim, norm, forward, False)
    shape = F.shape(input)
    d = wrap_dim(dim, len(shape), scalar_ok=False)
    size = _points(shape[d] if n is None else n)
    x = input if n is None else _resized(F, input, (d,), (size,))
    return F._fft_c2c(x, (d,), _scaling(norm, forward), forward)


class Sides(NamedTuple):
    """The dimensions of a transform, and their sizes."""

    dims: tuple[int, ...]
    sizes: tuple[int, ...]


def _sides(shape: Sequence[int], s: Any, dim: Any) -> Sides:
    """Which dimensions, and how long, as PyTorch reads `s` and `dim`."""
    n = len(shape)
    s = (s,) if isinstance(s, int) else s
    dim = (dim,) if isinstance(dim, int) else dim
    dims: tuple[int, ...] = ()
    if dim is not None:
        dims = tuple([wrap_dim(d, n, scalar_ok=False) for d in dim])
        if len(set(dims)) != len(dims):
            raise Invalid("FFT dims must be unique", code="repeated-dim", param="dim")
    if s is not None:
        if dim is not None and len(dims) != len(s):
            raise ShapeMismatch("When given, dim and shape arguments must have the same length", param="s")
        if len(s) > n:
            raise ShapeMismatch(f"Got shape with {len(s)} values but input tensor only has {n} dimensions.", param="s")
        dims = dims if dim is not None else tuple(range(n - len(s), n))
        sizes = [shape[d] if m == -1 else m for d, m in zip(dims, s, strict=True)]
    else:
        dims = dims if dim is not None else tuple(range(n))
        sizes = [shape[d] for d in dims]
    return Sides(dims, tuple([_points(m, "s") for m in sizes]))


def _at_least_one(sides: Sides, name: str) -> Sides:
    if not sides.dims:
        raise ShapeMismatch(f"{name} must transform at least one axis", param="dim")
    return sides


def _complex_n(F: Any, input: Any, s: Any, dim: Any, norm: Any, forward: bool) -> Any:
    dims, sizes = _sides(F.shape(input), s, dim)
    x = _promoted(F, input, complex_=True)
    return F._fft_c2c(_resized(F, x, dims, sizes), dims, _scaling(norm, forward), forward)


def _from_real_n(F: Any, input: Any, s: Any, dim: Any, norm: Any) -> Any:
    _real_only(F, input, "rfftn expects a real-valued input tensor, but got {}")
    dims, sizes = _at_least_one(_sides(F.shape(input), s, dim), "rfftn")
    x = _resized(F, _promoted(F, input), dims, sizes)
    return F._fft_r2c(x, dims, _scaling(norm, True), True)


def _halved(F: Any, name: str, input: Any, s: Any, dim: Any) -> tuple[Any, tuple[int, ...], int]:
    """(the input in the sizes it is read in, the dims, the last size of the real result)."""
    shape = F.shape(input)
    dims, sizes = _at_least_one(_sides(shape, s, dim), name)
    asked = (s,) if isinstance(s, int) else s
    last = 2 * (shape[dims[-1]] - 1) if asked is None or asked[-1] == -1 else sizes[-1]
    _points(last, "s")
    x = _resized(F, _promoted(F, input, complex_=True), dims, (*sizes[:-1], last // 2 + 1))
    return x, dims, last


def _to_real_n(F: Any, input: Any, s: Any, dim: Any, norm: Any) -> Any:
    x, dims, last = _halved(F, "irfftn", input, s, dim)
    return F._fft_c2r(x, dims, _scaling(norm, False), last)


def _hermitian_n(F: Any, input: Any, s: Any, dim: Any, norm: Any) -> Any:
    x, dims, last = _halved(F, "hfftn", input, s, dim)
    scale = _scaling(norm, True)
    if len(dims) > 1:
        x = F._fft_c2c(x, dims[:-1], scale, True)
    return F._fft_c2r(F.conj(x), dims[-1:], scale, last)


def _inverse_hermitian_n(F: Any, input: Any, s: Any, dim: Any, norm: Any) -> Any:
    dims, sizes = _at_least_one(_sides(F.shape(input), s, dim), "ihfftn")
    scale = _scaling(norm, False)
    x = _resized(F, _promoted(F, input), dims, sizes)
    made = F.conj(F._fft_r2c(x, dims[-1:], scale, True))
    return made if len(dims) == 1 else F._fft_c2c(made, dims[:-1], scale, False)


# ---------------------------------------------------------------- along one dimension

_ONE = [S(T(4)), S(C(3, 4)), S(T(2, 5), n=3, dim=0, norm="ortho"), S(C(2, 3), n=5, norm="forward"), S(I(4))]
_REAL = [S(T(4)), S(T(3, 5)), S(T(2, 5), n=3, dim=0, norm="ortho"), S(T(2, 3), n=5, norm="forward"), S(I(4))]
_HALF = [S(C(3)), S(C(2, 3), n=5), S(C(3, 2), n=3, dim=0, norm="ortho"), S(T(4), norm="forward"), S(I(3))]


@composite(family="fft", name="fft.fft", samples=_ONE)
def fft(F: Any, input: Array, n: int | None = None, dim: Dim = -1, norm: str | None = None) -> Array:
    """The discrete Fourier transform: y[k] = sum over j of x[j] exp(-2 pi i j k / n)."""
    return _complex(F, "fft", input, n, dim, norm, True)


@composite(family="fft", name="fft.ifft", samples=_ONE)
def ifft(F: Any, input: Array, n: int | None = None, dim: Dim = -1, norm: str | None = None) -> Array:
    """The inverse discrete Fourier transform: x[j] = 1 / n times the sum over k of y[k] exp(2 pi i j k / n)."""
    return _complex(F, "ifft", input, n, dim, norm, False)


@composite(family="fft", name="fft.rfft", samples=_REAL)
def rfft(F: Any, input: Array, n: int | None = None, dim: Dim = -1, norm: str | None = None) -> Array:
    """The transform of real numbers: its first n // 2 + 1 frequencies, since the others are their mirror image."""
    return _from_real(F, "rfft", input, n, dim, norm, True, True)


@composite(family="fft", name="fft.irfft", samples=_HALF)
def irfft(F: Any, input: Array, n: int | None = None, dim: Dim = -1, norm: str | None = None) -> Array:
    """The inverse of `rfft`: n real numbers, by default 2 * (size - 1), from half a spectrum."""
    return _to_real(F, input, n, dim, norm, False)


@composite(family="fft", name="fft.hfft", samples=_HALF)
def hfft(F: Any, input: Array, n: int | None = None, dim: Dim = -1, norm: str | None = None) -> Array:
    """The transform, real, of a signal that is Hermitian in time and given by its first half."""
    return _to_real(F, input, n, dim, norm, True)


@composite(family="fft", name="fft.ihfft", samples=_REAL)
def ihfft(F: Any, input: Array, n: int | None = None, dim: Dim = -1, norm: str | None = None) -> Array:
    """The inverse of `hfft`: the first half of a Hermitian signal, from its real transform."""
    return _from_real(F, "ihfft", input, n, dim, norm, False, True)


# ---------------------------------------------------------------- along several

_TWO = (-2, -1)
_MANY = [S(T(3, 4)), S(C(2, 3)), S(T(2, 3, 4), s=[2, 5], dim=[2, 0], norm="ortho"), S(C(2, 2), norm="forward")]
_REALS = [S(T(3, 4)), S(T(2, 3, 4), s=[2, 5], dim=[2, 0], norm="ortho"), S(I(2, 3)), S(T(2, 2), norm="forward")]
_HALVES = [S(C(3, 3)), S(C(2, 3, 2), s=[2, 5], dim=[2, 0], norm="ortho"), S(T(2, 3)), S(C(2, 2), norm="forward")]
_ALL = [S(C(3, 4)), S(T(2, 3), s=[4]), S(C(2, 3, 2), dim=[0, 2]), S(T(2, 3, 2), s=[-1, 3], dim=[0, 1])]
_ALL_REAL = [S(T(3, 4)), S(T(2, 3), s=[4]), S(T(2, 3, 2), dim=[0, 2]), S(T(2, 3, 2), s=[-1, 3], dim=[0, 1])]
_ALL_HALF = [S(C(3, 4)), S(T(2, 3), s=[4]), S(C(2, 3, 2), dim=[0, 2]), S(C(2, 3, 2), s=[2, -1], dim=[0, 1])]


@composite(family="fft", name="fft.fft2", samples=_MANY)
def fft2(F: Any, input: Array, s: Ints | None = None, dim: Dims = _TWO, norm: str | None = None) -> Array:
    """The discrete Fourier transform along two dimensions."""
    return _complex_n(F, input, s, dim, norm, True)


@composite(family="fft", name="fft.ifft2", samples=_MANY)
def ifft2(F: Any, input: Array, s: Ints | None = None, dim: Dims = _TWO, norm: str | None = None) -> Array:
    """The inverse discrete Fourier transform along two dimensions."""
    return _complex_n(F, input, s, dim, norm, False)


@composite(family="fft", name="fft.rfft2", samples=_REALS)
def rfft2(F: Any, input: Array, s: Ints | None = None, dim: Dims = _TWO, norm: str | None = None) -> Array:
    """The transform of real numbers along two dimensions, of the last one of them the first half."""
    return _from_real_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.irfft2", samples=_HALVES)
def irfft2(F: Any, input: Array, s: Ints | None = None, dim: Dims = _TWO, norm: str | None = None) -> Array:
    """The inverse of `rfft2`."""
    return _to_real_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.hfft2", samples=_HALVES)
def hfft2(F: Any, input: Array, s: Ints | None = None, dim: Dims = _TWO, norm: str | None = None) -> Array:
    """The real transform along two dimensions of a Hermitian signal that is given by half of its last dimension."""
    return _hermitian_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.ihfft2", samples=_REALS)
def ihfft2(F: Any, input: Array, s: Ints | None = None, dim: Dims = _TWO, norm: str | None = None) -> Array:
    """The inverse of `hfft2`."""
    return _inverse_hermitian_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.fftn", samples=_ALL)
def fftn(F: Any, input: Array, s: Ints | None = None, dim: Dims | None = None, norm: str | None = None) -> Array:
    """The discrete Fourier transform along several dimensions, by default all of them."""
    return _complex_n(F, input, s, dim, norm, True)


@composite(family="fft", name="fft.ifftn", samples=_ALL)
def ifftn(F: Any, input: Array, s: Ints | None = None, dim: Dims | None = None, norm: str | None = None) -> Array:
    """The inverse discrete Fourier transform along several dimensions, by default all of them."""
    return _complex_n(F, input, s, dim, norm, False)


@composite(family="fft", name="fft.rfftn", samples=_ALL_REAL)
def rfftn(F: Any, input: Array, s: Ints | None = None, dim: Dims | None = None, norm: str | None = None) -> Array:
    """The transform of real numbers along several dimensions, of the last one of them the first half."""
    return _from_real_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.irfftn", samples=_ALL_HALF)
def irfftn(F: Any, input: Array, s: Ints | None = None, dim: Dims | None = None, norm: str | None = None) -> Array:
    """The inverse of `rfftn`."""
    return _to_real_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.hfftn", samples=_ALL_HALF)
def hfftn(F: Any, input: Array, s: Ints | None = None, dim: Dims | None = None, norm: str | None = None) -> Array:
    """The real transform along several dimensions of a Hermitian signal, given by half of the last of them."""
    return _hermitian_n(F, input, s, dim, norm)


@composite(family="fft", name="fft.ihfftn", samples=_ALL_REAL)
def ihfftn(F: Any, input: Array, s: Ints | None = None, dim: Dims | None = None, norm: str | None = None) -> Array:
    """The inverse of `hfftn`."""
    return _inverse_hermitian_n(F, input, s, dim, norm)


# ---------------------------------------------------------------- frequencies


def _shift(F: Any, input: Any, dim: Any, half: Callable[[int], int]) -> Any:
    shape = F.shape(input)
    dims = tuple(range(len(shape))) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    shifts = tuple([half(shape[wrap_dim(d, len(shape), scalar_ok=False)]) for d in dims])
    return F.roll(input, shifts, dims)


_SHIFTS = [S(T(5)), S(T(3, 4)), S(C(3, 4), 1), S(T(2, 3), [0, -1]), S(I(4))]


@composite(family="fft", name="fft.fftshift", moves=True, samples=_SHIFTS)
def fftshift(F: Any, input: Array, dim: Dims | None = None) -> Array:
    """The halves of each dimension exchanged, so that frequency 0 is in the middle."""
    return _shift(F, input, dim, lambda n: n // 2)


@composite(family="fft", name="fft.ifftshift", moves=True, samples=_SHIFTS)
def ifftshift(F: Any, input: Array, dim: Dims | None = None) -> Array:
    """The inverse of `fftshift`: frequency 0 goes back from the middle to the front."""
    return _shift(F, input, dim, lambda n: (n + 1) // 2)


def _frequencies(name: str, count: Callable[[int], int]) -> Callable[..., Spec]:
    def meta(k: K, n: int, d: float = 1.0, dtype: Any = None, *rest: Any) -> Spec:
        made = as_dtype(dtype) or k.default_dtype
        spec = sized(k, (count(n),), made)
        if made.category < FLOAT:
            raise DtypeMismatch(f"{name} requires a floating point or complex dtype", param="dtype")
        if made.category == COMPLEX:
            raise not_implemented("arange_cpu", made)
        return spec

    return meta


def _scaled(k: K, places: Any, n: int, d: float) -> Any:
    """Whole numbers over n * d, in the roundings of PyTorch: the numbers, then the product."""
    made: DType = k.spec.dtype
    whole = places.astype(np.float64 if made.itemsize == 8 else np.float32)
    if made.reduced:
        whole = k.backend.widen(k.backend.cast(k.from_host(whole), float32, made), made)
    else:
        whole = k.from_host(whole)
    with np.errstate(all="ignore"):
        return whole * float(np.float64(1.0) / np.float64(n * d))


@op(
    family="fft",
    name="fft.fftfreq",
    meta=_frequencies("fftfreq", lambda n: n),
    vjp=None,
    samples=[S(5), S(4, 0.5), S(0), S(3, dtype="float64")],
)
def fftfreq(
    k: K,
    n: int,
    d: float = 1.0,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """The frequencies of an `fft` of n points that are `d` apart, in cycles per unit: 0, 1, ..., -1, over n d."""
    return _scaled(k, np.fft.ifftshift(np.arange(n) - n // 2), n, d)


@op(
    family="fft",
    name="fft.rfftfreq",
    meta=_frequencies("rfftfreq", lambda n: int(n / 2) + 1),
    vjp=None,
    samples=[S(5), S(4, 0.5), S(0), S(3, dtype="float64")],
)
def rfftfreq(
    k: K,
    n: int,
    d: float = 1.0,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """The frequencies of an `rfft` of n points that are `d` apart: 0, 1, ..., n // 2, over n d."""
    return _scaled(k, np.arange(prod(k.spec.shape)), n, d)
