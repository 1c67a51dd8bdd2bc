"""Norms of vectors and matrices."""

from __future__ import annotations

from math import inf
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dims, DTypeArg, Scalar, composite, op
from engine.dtypes import FLOAT, DType, promote_types, scalar_type, to_real
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.metas import as_dtype
from engine.op import Spec
from engine.ops.reductions import spread, total
from engine.samples import C, S, T
from engine.shapes import reduced, text, wrap_dim, wrap_dims

# ---------------------------------------------------------------- vectors


def _check_dtype(name: str, d: DType, given: DType | None) -> None:
    """Refuses to compute norms in `given`, in PyTorch's words."""
    if given is None:
        return
    kind = "complex" if d.is_complex else "real"
    if given.category < FLOAT:
        words = f"dtype should be floating point or complex, but got {scalar_type(given)}"
    elif given.is_complex != d.is_complex:
        words = f"dtype should be {kind} for {kind} inputs, but got {scalar_type(given)}"
    elif promote_types(d, given) is not given:
        words = (
            f"the dtype of the input ({scalar_type(d)}) should be convertible without narrowing to the specified "
            f"dtype ({scalar_type(given)})"
        )
    else:
        return
    raise DtypeMismatch(f"{name}: {words}", param="dtype")


def _norm_types(k: K, input: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    given = as_dtype(dtype)
    d = given or input.dtype
    if input.dtype.category < FLOAT:
        raise DtypeMismatch(
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {scalar_type(input.dtype)}",
            hint=Hint("cast-input", Call("to", {"input": Param("x"), "dtype": "float32"}), have=input.dtype.name),
            param="x",
        )
    _check_dtype("linalg.vector_norm", input.dtype, given)
    return d, to_real(d)


def _norm_meta(k: K, input: Spec, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Spec:
    if type(ord) is complex:
        raise Invalid("linalg.vector_norm: Expected a non-complex scalar as the order of norm.", param="ord")
    dims = wrap_dims(dim, input.ndim)
    if float(ord) in (inf, -inf) or ord < 0:
        sizes = [input.shape[d] for d in dims] if input.ndim else [1]
        if 0 in sizes:
            shown = "inf" if ord == inf else "-inf" if ord == -inf else f"{float(ord):g}"
            where = "an empty tensor"
            if dim is not None and input.ndim:
                where = f"the dimension {dims[sizes.index(0)]}because this dimension is empty and"
            raise Invalid(
                f"linalg.vector_norm cannot compute the {shown} norm on {where} "
                f"{'' if where.endswith('and') else 'because '}the operation does not have an identity",
                param="ord",
            )
    return Spec(reduced(input.shape, dims, keepdim), k.dtype)


@op(
    family="linalg",
    name="linalg.vector_norm",
    meta=_norm_meta,
    row_major=True,
    promote=_norm_types,
    over=("x",),
    save={"x": ("x", "result")},
    node="LinalgVectorNormBackward0",
    samples=[
        S(T(3)),
        S(T(2, 3), dim=1),
        S(T(2, 3), 1, [0, 1], True),
        S(T(2, 3), 3, 0),
        S(T(2, 3), float("inf"), 1),
        S(T(2, 3), float("-inf"), 1),
        S(T(2, 3), 0, 1),
        S(T(2, 3, low=0.3), 0.5, 1),
        S(T(2, 3, low=0.3), -1.5, 1),
        S(T()),
        S(T(0, 2), 2, 0),
        S(C(3)),
        S(C(2, 2), 1, 0),
        S(C(2, 2), 3, 0),
    ],
)
def vector_norm(
    k: K, x: Array, ord: Scalar = 2, dim: Dims | None = None, keepdim: bool = False, dtype: DTypeArg | None = None
) -> Array:
    """The `ord`-norm of all elements, or along `dim`: (sum of |x|^ord)^(1/ord).

    inf is the largest |x|, -inf the smallest, 0 how many are not zero. The 2-norm adds squares
    directly; only where they overflow or vanish the elements are scaled first.
    """
    xp = k.xp
    axes = wrap_dims(dim, x.ndim)
    real = k.spec.dtype.compute.np
    if ord == 2:
        made = xp.sqrt(_squares(k, x, axes, keepdim))
        if not _plain(k, made, x):
            made = _scaled_norm(k, x, axes, keepdim)
        return made
    size = xp.abs(x)
    if ord == 0:
        return (size != 0).sum(axis=axes if x.ndim else None, keepdims=keepdim, dtype=real)
    if ord == ord and all(
        x.shape[d] == 1 for d in axes[: x.ndim]
    ):  # each element alone: a high power and its root would lose it
        return size.reshape(k.spec.shape)
    if ord == inf:
        return size.max(axis=axes, keepdims=keepdim)
    if ord == -inf:
        return size.min(axis=axes, keepdims=keepdim)
    if ord == 1:
        return total(k, size, axes, keepdim)
    return xp.power(total(k, xp.power(size, ord), axes, keepdim), 1 / ord)


def _squares(k: K, x: Array, axes: Any, keepdim: bool) -> Array:
    if x.dtype.kind == "c":
        return total(k, x.real**2 + x.imag**2, axes, keepdim)
    if len(axes) == x.ndim and x.flags.c_contiguous and k.backend.kind == "cpu":
        flat = x.reshape(-1)
        made = k.xp.asarray(flat @ flat)
        return made.reshape((1,) * x.ndim if keepdim else ())
    return total(k, x * x, axes, keepdim)


def _plain(k: K, made: Array, x: Array) -> bool:
    """Whether no sum of squares overflowed or came out so small that squares may have vanished."""
    if k.backend.kind != "cpu":
        return False if made.size < 1 else bool(((made > 1e-15) & (made < 1e18)).all())
    return not made.size or bool(((made > 1e-15) & (made < 1e18)).all())


def _scaled_norm(k: K, x: Array, axes: Any, keepdim: bool) -> Array:
    xp = k.xp
    if not x.size:
        return xp.sqrt(_squares(k, x, axes, keepdim))
    size = xp.abs(x)
    largest = size.max(axis=axes, keepdims=True)
    unit = xp.where((largest > 0) & xp.isfinite(largest), largest, 1.0).astype(largest.dtype)
    parts = size / unit
    made = xp.sqrt(total(k, parts * parts, axes, True)) * unit
    return made if keepdim else made.reshape(reduced(x.shape, axes, False))


@vector_norm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, ord = saved.x, saved.ord
    shape = F.shape(x)
    if ord == 0:
        return F.zeros_like(x)
    g = spread(F, g, shape, saved.dim, saved.keepdim)
    if ord == 1:
        return F.mul(F.sgn(x), g)
    norm = spread(F, saved.result, shape, saved.dim, saved.keepdim)
    if ord == 2:
        return F.mul(x, F.where(F.eq(norm, 0), 0.0, F.div(g, norm)))
    size = F.abs(x)
    if ord in (inf, -inf):
        hit = F.eq(size, norm)
        dims = wrap_dims(saved.dim, len(shape))
        count = spread(F, F.sum(hit, dims), shape, saved.dim, False) if dims else 1.0
        return F.mul(F.sgn(x), F.where(hit, F.div(g, count), 0.0))
    if ord < 1:
        scaled = F.mul(F.sgn(x), F.where(F.eq(size, 0), 0.0, F.pow(size, ord - 1.0)))
        return F.mul(scaled, F.mul(g, F.pow(norm, 1.0 - ord)))
    if ord < 2:
        scaled = F.mul(F.sgn(x), F.pow(size, ord - 1.0))
        return F.mul(scaled, F.where(F.eq(norm, 0), 0.0, F.div(g, F.pow(norm, ord - 1.0))))
    scaled = F.mul(x, F.pow(size, ord - 2.0))
    return F.mul(scaled, F.where(F.eq(norm, 0), 0.0, F.div(g, F.pow(norm, ord - 1.0))))


# ---------------------------------------------------------------- matrices


def _pair(dim: Any, ndim: int) -> tuple[int, int]:
    dims = [dim] if isinstance(dim, int) else list(dim)
    if len(dims) != 2:
        raise Invalid(
            f"linalg.matrix_norm: dim must be a 2-tuple. Got {' '.join(map(str, dims))}",
            param="dim",
        )
    a, b = (wrap_dim(d, ndim) for d in dims)
    if a == b:
        raise Invalid(f"linalg.matrix_norm: dims must be different. Got ({a}, {b})", param="dim")
    return a, b


def _cast(F: Any, A: Any, dtype: Any) -> Any:
    return A if dtype is None else F.to(A, as_dtype(dtype))


def _matrix(F: Any, A: Any, ord: Any, dim: Any, keepdim: bool, dtype: Any) -> Any:
    shape = tuple(F.shape(A))
    if len(shape) < 2:
        raise ShapeMismatch("linalg.matrix_norm: The input tensor A must have at least 2 dimensions.", param="A")
    d = F.dtype(A)
    if d.category < FLOAT:
        raise DtypeMismatch(
            f"linalg.matrix_norm: Expected a floating point or complex tensor as input. Got {scalar_type(d)}",
            hint=Hint("cast-input", Call("to", {"input": Param("A"), "dtype": "float32"}), have=d.name),
            param="A",
        )
    a, b = _pair(dim, len(shape))
    _check_dtype("linalg.matrix_norm", d, as_dtype(dtype))
    if ord == "fro":
        return getattr(F, "linalg.vector_norm")(A, 2, (a, b), keepdim, dtype)
    if ord != "nuc" and (isinstance(ord, str | complex) or abs(ord) not in (1, 2, inf)):
        shown = f"{ord:g}" if isinstance(ord, int | float) else ord
        raise Invalid(f"linalg.matrix_norm: Order {shown} not supported.", param="ord")
    A = _cast(F, A, dtype)
    if ord == "nuc" or abs(ord) == 2:
        if F.dtype(A).reduced:
            raise DtypeMismatch(
                f"linalg.matrix_norm: Low precision dtypes not supported. Got {scalar_type(F.dtype(A))}",
                hint=Hint("cast-input", Call("to", {"input": Param("A"), "dtype": "float32"}), have=d.name),
                param="A",
            )
        rest = [i for i in range(len(shape)) if i not in (a, b)]
        values = F._svd(F.permute(A, (*rest, a, b)), False, "linalg.svd")[1]
        if ord == "nuc":
            made = F.sum(values, -1)
        else:
            made = _extreme(F, values, ord, -1, False)
        return F.reshape(made, reduced(shape, (a, b), True)) if keepdim else made
    along, over = (a, b) if abs(ord) == 1 else (b, a)
    sums = getattr(F, "linalg.vector_norm")(A, 1, along, keepdim)
    at = over if keepdim or over < along else over - 1
    return _extreme(F, sums, ord, at, keepdim)


def _extreme(F: Any, values: Any, ord: float, at: int, keepdim: bool) -> Any:
    """The largest or, for a negative order, the smallest along a dimension; the largest of none is 0."""
    if ord > 0 and not F.shape(values)[at]:
        return F.sum(values, at, keepdim)
    return (F.amax if ord > 0 else F.amin)(values, at, keepdim)


_MATRICES = [S(T(2, 3)), S(T(2, 3), 1), S(T(2, 3), float("inf")), S(T(2, 3), 2), S(T(3, 2), "nuc"), S(T(2, 2, 3), -1)]


@composite(
    family="linalg",
    name="linalg.matrix_norm",
    moves=True,
    samples=[*_MATRICES, S(T(2, 3, 2), "fro", [0, 2], True), S(T(2, 3, 2), 2, [0, 1], True), S(C(2, 2))],
)
def matrix_norm(
    F: Any,
    A: Array,
    ord: Scalar | str = "fro",
    dim: Dims = (-2, -1),
    keepdim: bool = False,
    dtype: DTypeArg | None = None,
) -> Array:
    """The norm of a matrix: "fro", "nuc", 1, -1, 2, -2, inf or -inf."""
    return _matrix(F, A, ord, dim, keepdim, dtype)


@composite(
    family="linalg",
    name="linalg.norm",
    moves=True,
    samples=[
        S(T(3)),
        S(T(2, 3)),
        S(T(2, 3), 1),
        S(T(2, 3), "nuc"),
        S(T(3), 3),
        S(T(2, 3), 2, 1),
        S(T(2, 3), None, 1, True),
        S(T(2, 3, 2), float("inf"), [0, 2]),
        S(C(2, 2)),
    ],
)
def norm(
    F: Any,
    input: Array,
    ord: Scalar | str | None = None,
    dim: Dims | None = None,
    keepdim: bool = False,
    dtype: DTypeArg | None = None,
) -> Array:
    """The norm of a vector or a matrix.

    Without `ord` it is the 2-norm of all elements; else that of a vector or a matrix, as `dim`, or the rank, asks for.
    """
    shape = F.shape(input)
    vector = getattr(F, "linalg.vector_norm")
    dims = None if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if dims is not None and ord is not None and len(dims) not in (1, 2):
        raise Invalid(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {text(dims)}", param="dim")
    if ord is None:
        return vector(input, 2, dims, keepdim, dtype)
    if dims is None:
        if len(shape) not in (1, 2):
            raise ShapeMismatch(
                f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {len(shape)}D.",
                param="input",
            )
        dims = [0] if len(shape) == 1 else [0, 1]
    if isinstance(ord, str) or len(dims) == 2:
        return _matrix(F, input, ord, dims, keepdim, dtype)
    return vector(input, ord, dims, keepdim, dtype)


# ---------------------------------------------------------------- older names


@composite(
    family="linalg",
    moves=True,
    node="NormBackward1",
    samples=[S(T(2, 3), 1), S(T(2, 3), [0, 1], True), S(C(2, 2), [0]), S(T(2, 3), [])],
)
def frobenius_norm(F: Any, input: Array, dim: Dims, keepdim: bool = False) -> Array:
    """The 2-norm along one or two dimensions, or of all elements where `dim` is empty: `linalg.vector_norm`."""
    dims = [dim] if isinstance(dim, int) else list(dim)
    if len(dims) > 2:
        raise Invalid(f"Expected at most 2 dimensions, but got {len(dims)} dimensions instead.", param="dim")
    _needs_float(F, input)
    return getattr(F, "linalg.vector_norm")(input, 2, dims or None, keepdim)


def _needs_float(F: Any, x: Any) -> None:
    d = F.dtype(x)
    if d.category < FLOAT:
        raise DtypeMismatch(
            f"norm(): input dtype should be either floating point or complex. Got {scalar_type(d)} instead.",
            hint=Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=d.name),
            param="input",
        )


@composite(
    family="linalg",
    moves=True,
    samples=[S(T(2, 3)), S(T(3, 2), keepdim=True), S(T(2, 3, 2), [0, 2], True)],
)
def nuclear_norm(F: Any, input: Array, dim: Dims | None = None, keepdim: bool = False) -> Array:
    """The sum of the singular values of matrices. `linalg.matrix_norm` with "nuc"."""
    return _matrix(F, input, "nuc", (-2, -1) if dim is None else dim, keepdim, None)


@composite(
    family="linalg",
    moves=True,
    samples=[S(T(2, 3, 2)), S(T(2, 3), 2, 1), S(T(2, 3, 2), 1, 1), S(T(2, 3), 2, -1), S(T(3))],
)
def norm_except_dim(F: Any, v: Array, pow: int = 2, dim: int = 0) -> Array:
    """The norms over all dimensions but one, which the weights of `weight_norm` are divided by; -1 leaves none out."""
    _needs_float(F, v)
    shape = F.shape(v)
    norm = getattr(F, "linalg.vector_norm")
    if dim == -1:
        return norm(v, pow)
    at = wrap_dim(dim, len(shape), scalar_ok=False)
    others = [d for d in range(len(shape)) if d != at]
    return norm(v, pow, others, True) if others else F.abs(v)
