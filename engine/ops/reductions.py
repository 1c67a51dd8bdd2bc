"""Reductions: fewer elements out than in."""

from __future__ import annotations

from collections.abc import Callable
from math import prod as product
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Dims, DTypeArg, Scalar, composite, op
from engine.dtypes import COMPLEX, FLOAT, INT, bool_, float64, int64, scalar_type, to_real, uint8
from engine.errors import Call, DtypeMismatch, Hint, Param
from engine.fitting import ones
from engine.metas import as_dtype, reduce
from engine.op import Spec
from engine.ops.common import not_implemented, overflow
from engine.samples import B, C, I, S, T
from engine.shapes import Shape, reduced, wrap_dims

# Lines shorter than this are reduced across instead of along: NumPy pays some 50 ns for each line along the last axis.
SHORT_LINE = 32
# Lines shorter than this are added up in the lanes of einsum, at twice the speed of `add.reduce`: each lane adds so few
# numbers that rounding does not show.
MIDDLE_LINE = 1024
# Lines from here on are cut into such pieces.
LONG_LINE = 8 * MIDDLE_LINE
# Fewer columns, or elements, than these are not worth a call of BLAS.
FEW_COLUMNS, SMALL = 8, 1 << 11
# Partial sums of this many elements: NumPy adds pairwise along the last axis only, one by one along the others.
BLOCK = 64


# ---------------------------------------------------------------- what reductions share


def axes_of(dim: Any, ndim: int) -> Shape | None:
    """The `axis` argument for an array method; None where everything is reduced."""
    return None if dim is None else wrap_dims(dim, ndim)


def total(k: K, x: Array, axes: Shape | None, keepdims: bool = False) -> Array:
    """The sum over `axes`, in the array's dtype, with an error that grows like the logarithm of the count.

    On the CPU short lines are added up without NumPy's cost per line, and long columns in blocks.
    """
    if k.backend.kind != "cpu":
        return x.sum(axis=axes, keepdims=keepdims)
    if axes is None and x.size >= LONG_LINE:
        axes = tuple(range(x.ndim))
    if axes and x.dtype.kind == "f" and x.flags.c_contiguous and x.size:
        shape, axes = x.shape, tuple(sorted(axes))
        if axes == (x.ndim - 1,) and shape[-1] <= MIDDLE_LINE:
            made = k.xp.einsum("ij->i", x.reshape(-1, shape[-1]))
            return made.reshape(reduced(shape, axes, keepdims))
        count = x.size if len(axes) == x.ndim else shape[-1] if axes == (x.ndim - 1,) else 0
        if count >= LONG_LINE:
            return _along_rows(k, x.reshape(-1, count)).reshape(reduced(shape, axes, keepdims))
        first, last = axes[0], axes[-1]
        count = product(shape[first : last + 1])
        if last < x.ndim - 1 and last - first + 1 == len(axes) and count >= BLOCK // 2:
            lead, tail = product(shape[:first]), product(shape[last + 1 :])
            columns = x.reshape(lead, count, tail)
            if tail >= FEW_COLUMNS and x.size >= SMALL and x.dtype.char in "fd":
                made = _down_columns(k, columns)
                return made.reshape(reduced(shape, axes, keepdims))
            if count >= 4 * BLOCK:
                whole = count // BLOCK * BLOCK
                made = total(k, columns[:, :whole].reshape(lead, -1, BLOCK, tail).sum(axis=2), (1,))
                if whole < count:
                    made += columns[:, whole:].sum(axis=1)
                return made.reshape(reduced(shape, axes, keepdims))
        if last == x.ndim - 1 and last - first + 1 != len(axes):  # the last ones first, whose lines are long
            tail = next(i for i in range(x.ndim, 0, -1) if i - 1 not in axes)
            lines = total(k, x.reshape(*shape[:tail], -1), (tail,))
            made = total(k, lines, tuple([a for a in axes if a < tail]))
            return made.reshape(reduced(shape, axes, keepdims))
    return k.xp.add.reduce(x, axis=axes, keepdims=keepdims)  # what `x.sum` calls


def _down_columns(k: K, x: Array) -> Array:
    """The sums of columns, of (matrices, rows, columns): by BLAS, as rows of ones by pieces, whose sums are as rows.

    NumPy adds row to row, which takes twice as long and loses more digits.
    """
    while x.shape[1] >= 2 * BLOCK:
        lead, count, tail = x.shape
        whole = count // BLOCK * BLOCK
        made = ones(BLOCK, x.dtype) @ x[:, :whole].reshape(lead, -1, BLOCK, tail)
        if whole < count:
            made[:, -1] += ones(count - whole, x.dtype) @ x[:, whole:]
        x = made
    summed: Array = ones(x.shape[1], x.dtype) @ x
    return summed


def _along_rows(k: K, x: Array) -> Array:
    """The sum of each row of a matrix with long rows: in pieces that einsum adds up in lanes, then pairwise."""
    whole = x.shape[1] // MIDDLE_LINE * MIDDLE_LINE
    made = k.xp.add.reduce(k.xp.einsum("ijk->ij", x[:, :whole].reshape(x.shape[0], -1, MIDDLE_LINE)), axis=1)
    if whole < x.shape[1]:
        made += k.xp.einsum("ij->i", x[:, whole:])
    return made


def largest(k: K, x: Array, axis: int, keepdims: bool = False) -> Array:
    """The maximum along one axis; NaN wins."""
    n = x.shape[axis] if x.ndim else 1
    if k.backend.kind == "cpu" and axis == x.ndim - 1 and 0 < n <= SHORT_LINE and x.size > 256:
        made = k.xp.ascontiguousarray(x.reshape(-1, n).T).max(axis=0)
        return made.reshape(reduced(x.shape, (axis,), keepdims))
    if k.backend.kind == "cpu" and axis == x.ndim - 1 and 0 < n <= MIDDLE_LINE and x.flags.c_contiguous:
        # `reduceat` has half of the cost per line.
        made = k.xp.maximum.reduceat(x.reshape(-1), k.xp.arange(0, x.size, n)) if x.size else x.max(axis=axis)
        return made.reshape(reduced(x.shape, (axis,), keepdims))
    return x.max(axis=axis, keepdims=keepdims)


def spread(F: Any, g: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """A reduction's gradient, expanded over the dimensions that were reduced."""
    if dim is None and not keepdim:
        return F.expand(g, shape)
    dims = wrap_dims(dim, len(shape))
    if not keepdim and dims:
        g = F.reshape(g, tuple(1 if i in dims else n for i, n in enumerate(shape)))
    return F.expand(g, shape)


def kept(F: Any, x: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """A reduction's result with its reduced dimensions back, of size 1."""
    dims = wrap_dims(dim, len(shape))
    return x if keepdim or not dims else F.reshape(x, reduced(shape, dims, True))


def by_dim(name: str) -> Callable[..., str]:
    """torch's grad_fn of an operation that has one overload for all elements and one along dimensions."""
    return lambda input, dim=None, *rest: f"{name}Backward{int(dim is not None)}"


def count(shape: tuple[int, ...], dim: Any) -> int:
    """How many elements go into each element of a reduction."""
    return product(shape[d] for d in wrap_dims(dim, len(shape)))


# ---------------------------------------------------------------- sums and products


def _sum_types(k: K, input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    d = as_dtype(dtype) or (int64 if input.dtype.category <= INT else input.dtype)
    narrow = d is int64 and input.dtype.category <= INT  # the kernel widens as it adds
    return input.dtype if narrow or d is bool_ else d, d


@op(
    family="reductions",
    node=by_dim("Sum"),
    meta=reduce,
    promote=_sum_types,
    over=("input",),
    samples=[
        S(T(2, 3)),
        S(T(2, 3), 1),
        S(T(2, 3), [0, 1], True),
        S(T()),
        S(T(0, 3), 0),
        S(C(2, 2)),
        S(I(2, 3)),
        S(B(2, 3), 0),
        S(T(2, 3, 2), [0, -1]),
    ],
)
def sum(k: K, input: Array, dim: Dims | None = None, keepdim: bool = False, dtype: DTypeArg | None = None) -> Array:
    """The sum of all elements, or along `dim`; integers and bools add up in int64."""
    axes = axes_of(dim, input.ndim)
    if k.spec.dtype is bool_:
        return (input != 0).any(axis=axes, keepdims=keepdim)
    if input.dtype != k.spec.dtype.compute.np or input.dtype.kind == "u":  # NumPy adds bytes up in uint64
        return input.sum(axis=axes, keepdims=keepdim, dtype=k.spec.dtype.np)
    return total(k, input, axes, keepdim)


@sum.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return spread(F, g, saved.input.shape, saved.dim, saved.keepdim)


@sum.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    return (spread(k.raw, g, values[0].shape, values[1], values[2]),)


def _mean_types(k: K, input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    given = as_dtype(dtype)
    d = given or input.dtype
    if d.category < FLOAT:
        cast = Call("mean", {"input": Param("input"), "dtype": "float32"})
        raise DtypeMismatch(
            f"mean(): could not infer output dtype. {'Input' if given is None else 'Optional'} dtype must be either a "
            f"floating point or complex dtype. Got: {scalar_type(d)}",
            hint=Hint("mean-dtype", cast, have=d.name),
            param="input" if given is None else "dtype",
        )
    return d, d


@op(
    family="reductions",
    node=by_dim("Mean"),
    meta=reduce,
    promote=_mean_types,
    over=("input",),
    samples=[S(T(2, 3)), S(T(2, 3), 1), S(T(2, 3), [0, 1], True), S(T()), S(C(2, 2)), S(I(2, 3), dtype="float32")],
)
def mean(k: K, input: Array, dim: Dims | None = None, keepdim: bool = False, dtype: DTypeArg | None = None) -> Array:
    """The mean of all elements, or along `dim`; of nothing it is NaN. Integers need a floating `dtype`."""
    made = total(k, input, axes_of(dim, input.ndim), keepdim)
    return k.xp.true_divide(made, count(input.shape, dim))


@mean.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shape = saved.input.shape
    return spread(F, g / count(shape, saved.dim), shape, saved.dim, saved.keepdim)


@mean.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    shape = values[0].shape
    return (spread(k.raw, g / count(shape, values[1]), shape, values[1], values[2]),)


def _prod_types(k: K, input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    d = as_dtype(dtype) or (int64 if input.dtype.category <= INT else input.dtype)
    return d, d


@op(
    family="reductions",
    node=by_dim("Prod"),
    meta=reduce,
    promote=_prod_types,
    over=("input",),
    save={"input": ("input",)},
    samples=[
        S(T(2, 3, low=0.5)),
        S(T(2, 3), 1),
        S(T(4, values=[0.0, 2.0, 3.0, -1.0])),
        S(T(2, 3), 0, True),
        S(T()),
        S(T(2, 2, values=[[0.0, 0.0], [1.5, 0.0]]), 1),
        S(T(0)),
        S(C(3)),
        S(I(2, 3)),
    ],
)
def prod(k: K, input: Array, dim: Dim | None = None, keepdim: bool = False, dtype: DTypeArg | None = None) -> Array:
    """The product of all elements, or along `dim`; integers and bools multiply in int64."""
    axes = axes_of(dim, input.ndim)
    if k.spec.dtype is bool_:
        return (input != 0).all(axis=axes, keepdims=keepdim)
    return input.prod(axis=axes, keepdims=keepdim, dtype=input.dtype)


@prod.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    others = F._other_products(saved.input, saved.dim)
    return spread(F, g, saved.input.shape, saved.dim, saved.keepdim) * F.conj(others)


def _like(k: K, input: Spec, *rest: Any) -> Spec:
    return input


def other_products(F: Any, input: Array, dim: Dim | None = None) -> Array:
    """The product of what precedes an element and of what follows it: no division, so zeros do no harm."""
    shape = F.shape(input)
    lines = F.reshape(input, (product(shape),)) if dim is None else input
    d = 0 if dim is None else dim
    before = F._shift(F.cumprod(lines, d), d, 1, 1.0)
    after = F.flip(F._shift(F.cumprod(F.flip(lines, (d,)), d), d, 1, 1.0), (d,))
    return F.reshape(before * after, shape)


@op(family="reductions", meta=_like, save={"input": ("input",)})
def _other_products(k: K, input: Array, dim: Any = None) -> Array:
    """For each element, the product of all others along `dim`."""
    xp = k.xp
    if input.ndim == 0:
        return xp.ones_like(input)
    if k.backend.kind == "cpu" and input.all():
        return input.prod(axis=dim, keepdims=True, dtype=input.dtype) / input
    lines = input.reshape(-1, 1) if dim is None else xp.moveaxis(input, dim, 0)
    before, after = xp.ones_like(lines), xp.ones_like(lines)
    before[1:] = xp.cumprod(lines[:-1], axis=0)
    after[:-1] = xp.cumprod(lines[:0:-1], axis=0)[::-1]
    made = before * after
    return made.reshape(input.shape) if dim is None else xp.moveaxis(made, 0, dim)


@_other_products.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    from engine.autograd import vjp_through

    return vjp_through(other_products)(F, saved, g, need)


def _nansum_types(k: K, input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if input.dtype.category == COMPLEX:
        raise DtypeMismatch("nansum on CPU does not support complex inputs", param="input")
    wanted = as_dtype(dtype)
    if wanted is not None and wanted.is_complex:
        raise not_implemented("nansum_cpu", wanted)
    return _sum_types(k, input, dim, keepdim, dtype)


@op(
    family="reductions",
    meta=reduce,
    promote=_nansum_types,
    over=("input",),
    save={"input": ("input",)},
    samples=[S(T(3, values=[1.0, float("nan"), 2.5])), S(T(2, 3), 1), S(T(2, 3), [0, 1], True), S(T()), S(I(2, 3))],
    example={"input": [1.5, "NaN", 2.5]},
)
def nansum(k: K, input: Array, dim: Dims | None = None, keepdim: bool = False, dtype: DTypeArg | None = None) -> Array:
    """The sum of all elements, or along `dim`, NaN counting as zero."""
    if input.dtype.kind in "fc":
        input = k.xp.where(input == input, input, k.xp.zeros((), input.dtype))
    return sum.op.kernel(k, input, dim, keepdim)  # type: ignore[misc]


@nansum.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    there = F.eq(saved.input, saved.input)
    return F.mul(spread(F, g, saved.input.shape, saved.dim, saved.keepdim), there)


@composite(
    family="reductions", node="DivBackward0", samples=[S(T(2, 3)), S(T(2, 3), 1), S(T(2, 3), [0, 1], True), S(T())]
)
def nanmean(
    F: Any, input: Array, dim: Dims | None = None, keepdim: bool = False, dtype: DTypeArg | None = None
) -> Array:
    """The mean of all elements, or along `dim`, of what is not NaN."""
    d = F.dtype(input)
    if d.category < FLOAT:
        raise DtypeMismatch(
            f"nanmean(): expected input to have floating point or complex dtype but got {scalar_type(d)}", param="input"
        )
    wanted = as_dtype(dtype)
    if wanted is not None and wanted.category < FLOAT:
        raise DtypeMismatch(
            "nanmean(): could not infer output dtype. Optional dtype must be either a floating point or complex dtype. "
            f"Got: {scalar_type(wanted)}",
            param="dtype",
        )
    return F.div(F.nansum(input, dim, keepdim, dtype), F.sum(F.eq(input, input), dim, keepdim))


def _count_meta(k: K, input: Spec, dim: Any = None) -> Spec:
    return Spec(reduced(input.shape, wrap_dims(dim, input.ndim), False), int64)


@op(
    family="reductions",
    meta=_count_meta,
    row_major=True,
    vjp=None,
    samples=[S(I(2, 3)), S(T(2, 3), 1), S(T()), S(B(2, 3), [0, 1])],
)
def count_nonzero(k: K, input: Array, dim: Dims | None = None) -> Array:
    """How many elements are not zero, in all or along `dim`."""
    return (input != 0).sum(axis=axes_of(dim, input.ndim), dtype=int64.np)


# ---------------------------------------------------------------- all, any


def _truth_meta(k: K, input: Spec, dim: Any = None, keepdim: bool = False) -> Spec:
    dims = wrap_dims(dim, input.ndim, empty_is_all=False)
    return Spec(reduced(input.shape, dims, keepdim), uint8 if input.dtype is uint8 else bool_)


def _truth_axes(dim: Any, ndim: int) -> Shape | None:
    return None if dim is None else wrap_dims(dim, ndim, empty_is_all=False)


_TRUTH = [S(B(2, 3)), S(T(2, 3), 1), S(T(2, 3), [0, 1], True), S(T()), S(I(2, 3), 0), S(B(0, 3), 0)]


@op(family="reductions", meta=_truth_meta, vjp=None, samples=_TRUTH)
def all(k: K, input: Array, dim: Dims | None = None, keepdim: bool = False) -> Array:
    """Whether all elements are nonzero, in all or along `dim`; a bool tensor (uint8 stays uint8)."""
    return (input != 0).all(axis=_truth_axes(dim, input.ndim), keepdims=keepdim)


@op(family="reductions", meta=_truth_meta, vjp=None, samples=_TRUTH)
def any(k: K, input: Array, dim: Dims | None = None, keepdim: bool = False) -> Array:
    """Whether some element is nonzero, in all or along `dim`; a bool tensor (uint8 stays uint8)."""
    return (input != 0).any(axis=_truth_axes(dim, input.ndim), keepdims=keepdim)


# ---------------------------------------------------------------- var, std


def variance(k: K, x: Array, dim: Any, correction: float | None, keepdim: bool) -> tuple[Array, Array]:
    """(variance, mean): two passes, so that a large mean costs no digits.

    Where something overflows in single precision both are of double precision, as PyTorch's are on the way.
    """
    made, mean = _moments(k, x, dim, correction, keepdim)
    if x.dtype.itemsize <= (8 if x.dtype.kind == "c" else 4) and not bool(k.xp.isfinite(made).all()):
        return _moments(k, x.astype("complex128" if x.dtype.kind == "c" else "float64"), dim, correction, keepdim)
    return made, mean


def _moments(k: K, x: Array, dim: Any, correction: float | None, keepdim: bool) -> tuple[Array, Array]:
    axes = wrap_dims(dim, x.ndim)
    n = count(x.shape, dim)
    freedom = n - (1 if correction is None else correction)
    freedom = freedom if freedom > 0 and n else 0
    mean = k.xp.true_divide(total(k, x, axes, True), n)
    d = x - mean
    if d.dtype.kind == "c":
        squares = d.real**2 + d.imag**2
    else:
        squares = k.xp.multiply(d, d, out=d) if d.ndim else d * d
    made = k.xp.true_divide(total(k, squares, axes, keepdim), freedom)
    if d.dtype.kind == "c" and not freedom:  # the sum of the parts' variances, of which 0 / 0 is NaN
        for part in (d.real, d.imag):
            made = made + k.xp.true_divide(total(k, part * part, axes, keepdim), freedom)
    return made, mean.reshape(made.shape)


def _var_meta(name: str) -> Any:
    def meta(k: K, input: Spec, dim: Any = None, correction: Any = None, keepdim: bool = False) -> Any:
        if type(correction) is complex:
            raise overflow(float64, "correction")
        if input.dtype.category < FLOAT:
            raise DtypeMismatch(
                f"{name} only support floating point and complex dtypes",
                hint=Hint(
                    "cast-float", Call("to", {"input": Param("input"), "dtype": "float32"}), have=input.dtype.name
                ),
                param="input",
            )
        shape = reduced(input.shape, wrap_dims(dim, input.ndim), keepdim)
        spread_ = Spec(shape, to_real(input.dtype))
        return spread_ if name == "std and var" else (spread_, Spec(shape, input.dtype))

    return meta


def _var_gradient(F: Any, saved: Any, g: Any) -> Any:
    """2 / freedom * (x - mean) * g."""
    x = saved.input
    shape = F.shape(x)
    freedom = count(shape, saved.dim) - (1 if saved.correction is None else saved.correction)
    g = spread(F, g, shape, saved.dim, saved.keepdim)
    centred = x - F.mean(x, saved.dim, True)
    if freedom <= 0 and (saved.dim is None or not shape):
        return F.mul(g, F.where(F.eq(centred, 0), float("nan"), float("inf")))
    return F.mul(g * (2.0 / freedom if freedom else float("inf")), centred)


def _std_gradient(F: Any, saved: Any, g: Any) -> Any:
    std = saved[saved._fields.index("std" if "std" in saved._fields else "result")]
    return _var_gradient(F, saved, F.where(F.eq(std, 0), 0.0, g / (std * 2)))


_VAR = [
    S(T(2, 3)),
    S(T(2, 3), 1),
    S(T(2, 3), [0, 1], correction=0, keepdim=True),
    S(T(4, 2), 0, correction=2),
    S(C(2, 3), 1),
]
_VAR_DIM = [S(T(2, 3), 1), S(T(2, 3), [0, 1], False, True), S(C(2, 3), 1, False)]
_VAR_ALL = [S(T(2, 3), True), S(T(2, 3), False), S(C(2, 3), False)]


@op(
    family="reductions",
    name="_var",
    joins="var",
    node="VarBackward0",
    meta=_var_meta("std and var"),
    save={"input": ("input",)},
    samples=_VAR,
)
def _var(k: K, input: Array, dim: Dims | None = None, correction: Scalar | None = None, keepdim: bool = False) -> Array:
    """The variance of all elements, or along `dim`: squares over (n - correction), by default n - 1."""
    return variance(k, input, dim, correction, keepdim)[0]


@_var.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return _var_gradient(F, saved, g)


@op(
    family="reductions",
    name="_std",
    joins="std",
    node="StdBackward0",
    meta=_var_meta("std and var"),
    save={"input": ("input", "result")},
    samples=_VAR,
)
def _std(k: K, input: Array, dim: Dims | None = None, correction: Scalar | None = None, keepdim: bool = False) -> Array:
    """The standard deviation of all elements, or along `dim`: squares over (n - correction), by default n - 1."""
    return k.xp.sqrt(variance(k, input, dim, correction, keepdim)[0])


@_std.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return _std_gradient(F, saved, g)


@op(
    family="reductions",
    name="_var_mean",
    joins="var_mean",
    node="VarMeanBackward0",
    meta=_var_meta("var_mean"),
    outputs=("var", "mean"),
    save={"input": ("input",)},
    samples=_VAR,
)
def _var_mean(
    k: K, input: Array, dim: Dims | None = None, correction: Scalar | None = None, keepdim: bool = False
) -> Array:
    """The variance and the mean of all elements, or along `dim`."""
    return variance(k, input, dim, correction, keepdim)


def _mean_gradient(F: Any, saved: Any, g: Any) -> Any:
    shape = F.shape(saved.input)
    return spread(F, g / count(shape, saved.dim), shape, saved.dim, saved.keepdim)


@_var_mean.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    parts = [] if g[0] is None else [_var_gradient(F, saved, g[0])]
    if g[1] is not None:
        parts.append(_mean_gradient(F, saved, g[1]))
    return parts[0] if len(parts) == 1 else F.add(parts[0], parts[1])


@op(
    family="reductions",
    name="_std_mean",
    joins="std_mean",
    node="StdMeanBackward0",
    meta=_var_meta("std_mean"),
    outputs=("std", "mean"),
    save={"input": ("input", "std")},
    samples=_VAR,
)
def _std_mean(
    k: K, input: Array, dim: Dims | None = None, correction: Scalar | None = None, keepdim: bool = False
) -> Array:
    """The standard deviation and the mean of all elements, or along `dim`."""
    made, mean = variance(k, input, dim, correction, keepdim)
    return k.xp.sqrt(made), mean


@_std_mean.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    parts = [] if g[0] is None else [_std_gradient(F, saved, g[0])]
    if g[1] is not None:
        parts.append(_mean_gradient(F, saved, g[1]))
    return parts[0] if len(parts) == 1 else F.add(parts[0], parts[1])


def _unbiased_overloads(name: str, what: str) -> None:
    """The two older forms, with a bool where `correction` is now."""

    def along(F: Any, input: Array, dim: Dims | None, unbiased: bool = True, keepdim: bool = False) -> Array:
        return getattr(F, f"_{name}")(input, dim, int(unbiased), keepdim)

    def whole(F: Any, input: Array, unbiased: bool = True) -> Array:
        return getattr(F, f"_{name}")(input, None, int(unbiased), False)

    doc = f"{what} of all elements, or along `dim`; `unbiased` divides by n - 1, else by n."
    along.__doc__ = whole.__doc__ = doc
    composite(family="reductions", name=f"_{name}_dim", joins=name, moves=True, samples=_VAR_DIM)(along)
    composite(family="reductions", name=f"_{name}_all", joins=name, moves=True, samples=_VAR_ALL)(whole)


for _row in (
    ("var", "The variance"),
    ("std", "The standard deviation"),
    ("var_mean", "The variance and the mean"),
    ("std_mean", "The standard deviation and the mean"),
):
    _unbiased_overloads(*_row)
