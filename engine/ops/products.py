"""Products of matrices and vectors."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, C_NAMES, FLOAT, DType, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import fitting, times
from engine.samples import C, I, S, T
from engine.shapes import Shape, broadcast_two, text

# ---------------------------------------------------------------- kernels

# Products of fewer multiplications are left to NumPy's plain loops; splitting them costs more than it saves.
SMALL_WHOLE = 1 << 15


def multiply(k: K, a: Array, b: Array) -> Array:
    """a @ b, by NumPy's rules of ranks; integers exactly, modulo their width."""
    if a.dtype.kind in "iu" and k.backend.kind == "cpu" and a.ndim and b.ndim and a.size and b.size:
        columns = b.shape[-1] if b.ndim > 1 else 1
        if a.size * columns * (b.size // (b.shape[-2] * columns) if b.ndim > a.ndim else 1) > SMALL_WHOLE:
            return _whole(k, a, b)
    elif a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and a.size:
        return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
    return a @ b


def _bound(x: Array) -> int:
    return max(-int(x.min()), int(x.max()), 1)


def _whole(k: K, a: Array, b: Array) -> Array:
    """A product of integers by float64 arithmetic, which is exact below 2^53; larger ones are cut into limbs.

    With `w` bits in a limb, products of limbs add up below 2^53 if 2w + log2(inner size) <= 53; those that only reach
    beyond the dtype's own width are left out.
    """
    xp = k.xp
    inner = a.shape[-1]
    d = a.dtype
    if _bound(a) * _bound(b) * inner < 1 << 53:
        return (a.astype(xp.float64) @ b.astype(xp.float64)).astype(xp.int64).astype(d)
    width = 8 * d.itemsize
    w = min((53 - inner.bit_length()) // 2, width)
    mask = (1 << w) - 1

    def limbs(x: Array) -> list[Array]:
        bits = x.astype(xp.int64).view(xp.uint64)
        return [((bits >> xp.uint64(s)) & xp.uint64(mask)).astype(xp.float64) for s in range(0, width, w)]

    left, right = limbs(a), limbs(b)
    total: Any = None
    for i, x in enumerate(left):
        for j, y in enumerate(right[: len(left) - i]):
            part = (x @ y).astype(xp.uint64) << xp.uint64((i + j) * w)
            total = part if total is None else total + part
    return total.astype(d)


# ---------------------------------------------------------------- refusals


def cast_hint(a: Spec, b: Spec, first: str, second: str) -> Hint:
    """Which of two operands to cast to the other's dtype: the one with fewer values."""
    rank = (a.dtype.category, a.dtype.itemsize) < (b.dtype.category, b.dtype.itemsize)
    low, high = (first, b.dtype) if rank else (second, a.dtype)
    call = Call("to", {"input": Param(low), "dtype": high.name})
    return Hint("cast-one", call, a=a.dtype.name, b=b.dtype.name, param=low)


def same_dtype(a: Spec, b: Spec, first: str, second: str, words: str = "") -> None:
    """Refuses products of mixed dtypes, in PyTorch's words, and says which operand to cast.

    `words` may use {a}, {b} (Float) and {x}, {y} (float).
    """
    if a.dtype is not b.dtype:
        words = words or "expected m1 and m2 to have the same dtype, but got: {x} != {y}"
        x, y = C_NAMES[a.dtype.name], C_NAMES[b.dtype.name]
        said = words.format(a=scalar_type(a.dtype), b=scalar_type(b.dtype), x=x, y=y)
        raise DtypeMismatch(said, hint=cast_hint(a, b, first, second), param=second)


def refuse_bool(d: DType, kernel: str) -> None:
    """Refuses products of bools, in PyTorch's words."""
    if d.category == BOOL:
        raise DtypeMismatch(
            f"\"{kernel}\" not implemented for 'Bool'",
            code="dtype-not-implemented",
            hint=Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=d.name),
        )


def check_expands(have: Shape, want: Shape, param: str = "input") -> None:
    """Refuses what cannot be expanded to a shape, in PyTorch's words."""
    if len(have) > len(want):
        raise ShapeMismatch(
            f"expand(torch.FloatTensor{{{text(have)}}}, size={text(want)}): the number of sizes provided ({len(want)}) "
            f"must be greater or equal to the number of dimensions in the tensor ({len(have)})",
            param=param,
        )
    shift = len(want) - len(have)
    for i in range(len(want) - 1, shift - 1, -1):
        n = have[i - shift]
        if n not in (1, want[i]):
            raise ShapeMismatch(
                f"The expanded size of the tensor ({want[i]}) must match the existing size ({n}) at non-singleton "
                f"dimension {i}.  Target sizes: {text(want)}.  Tensor sizes: {text(have)}",
                hint=Hint("expand", input=Param(param)),
                param=param,
            )


def _inner(a: Shape, b: Shape, words: str) -> ShapeMismatch:
    return ShapeMismatch(words, hint=Hint("inner-sizes", a=list(a), b=list(b)))


def _cannot(a: Shape, b: Shape) -> ShapeMismatch:
    rows = prod(a[:-1])
    return _inner(a, b, f"mat1 and mat2 shapes cannot be multiplied ({rows}x{a[-1]} and {b[-2]}x{b[-1]})")


# ---------------------------------------------------------------- two operands


def adjoint(F: Any, x: Any) -> Any:
    """The conjugate transpose of a matrix, or of each in a batch."""
    return F.conj(F.transpose(x, -2, -1))


def _mm_meta(k: K, input: Spec, mat2: Spec) -> Spec:
    a, b = input.shape, mat2.shape
    if len(a) != 2:
        raise ShapeMismatch("self must be a matrix", param="input")
    if len(b) != 2:
        raise ShapeMismatch("mat2 must be a matrix", param="mat2")
    if a[1] != b[0]:
        raise _cannot(a, b)
    if input.dtype is not mat2.dtype or input.dtype.category == BOOL:
        same_dtype(input, mat2, "input", "mat2")
        refuse_bool(input.dtype, "addmm_impl_cpu_")
    return Spec((a[0], b[1]), input.dtype)


@op(family="linalg", meta=_mm_meta, save={"input": ("mat2",), "mat2": ("input",)},
    samples=[S(T(2, 3), T(3, 4)), S(T(0, 3), T(3, 2)), S(T(2, 0), T(0, 2)), S(C(2, 2), C(2, 3)), S(I(2, 3), I(3, 2))])
def mm(k: K, input: Array, mat2: Array) -> Array:
    """The matrix product of two matrices, (n x m) by (m x p); both of one dtype."""
    return multiply(k, input, mat2)


@mm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (need.input and F.mm(g, adjoint(F, saved.mat2)), need.mat2 and F.mm(adjoint(F, saved.input), g))


def _bmm_meta(k: K, input: Spec, mat2: Spec) -> Spec:
    a, b = input.shape, mat2.shape
    if len(a) != 3:
        raise ShapeMismatch("batch1 must be a 3D tensor", param="input")
    if len(b) != 3:
        raise ShapeMismatch("batch2 must be a 3D tensor", param="mat2")
    if a[0] != b[0] or a[2] != b[1]:
        raise _inner(
            a, b, f"Expected size for first two dimensions of batch2 tensor to be: [{a[0]}, {a[2]}] but got: "
            f"[{b[0]}, {b[1]}]."
        )
    same_dtype(input, mat2, "input", "mat2", "expected scalar type {a} but found {b}")
    refuse_bool(input.dtype, "bmm")
    return Spec((a[0], a[1], b[2]), input.dtype)


@op(family="linalg", meta=_bmm_meta, save={"input": ("mat2",), "mat2": ("input",)},
    samples=[S(T(2, 2, 3), T(2, 3, 2)), S(T(0, 2, 3), T(0, 3, 2)), S(T(2, 2, 0), T(2, 0, 2)), S(C(1, 2, 2), C(1, 2, 2)),
             S(I(2, 2, 3), I(2, 3, 2))])
def bmm(k: K, input: Array, mat2: Array) -> Array:
    """The matrix products of two batches of matrices, (b x n x m) by (b x m x p); both of one dtype."""
    return multiply(k, input, mat2)


@bmm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (need.input and F.bmm(g, adjoint(F, saved.mat2)), need.mat2 and F.bmm(adjoint(F, saved.input), g))


_ADDMV = "addmv input tensors must have the same dtype, but got {b}, {a}, and {b}"


def _mv_meta(k: K, input: Spec, vec: Spec) -> Spec:
    a, b = input.shape, vec.shape
    if len(a) != 2 or len(b) != 1:
        raise ShapeMismatch(
            f"vector + matrix @ vector expected, got 1, {len(a)}, {len(b)}", param="input" if len(a) != 2 else "vec"
        )
    if a[1] != b[0]:
        raise _inner(a, b, f"size mismatch, got input ({a[0]}), mat ({a[0]}x{a[1]}), vec ({b[0]})")
    same_dtype(input, vec, "input", "vec", _ADDMV)
    refuse_bool(input.dtype, "addmv_impl_cpu")
    return Spec(a[:1], input.dtype)


@op(family="linalg", meta=_mv_meta, save={"input": ("vec",), "vec": ("input",)},
    samples=[S(T(2, 3), T(3)), S(T(2, 0), T(0)), S(C(2, 2), C(2)), S(I(2, 3), I(3))])
def mv(k: K, input: Array, vec: Array) -> Array:
    """The product of a matrix and a vector, (n x m) by (m); both of one dtype."""
    return multiply(k, input, vec)


@mv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (need.input and F.outer(g, F.conj(saved.vec)), need.vec and F.mv(adjoint(F, saved.input), g))


def _dot_meta(k: K, input: Spec, other: Spec) -> Spec:
    a, b = input.shape, other.shape
    if len(a) != 1 or len(b) != 1:
        raise ShapeMismatch(f"1D tensors expected, but got {len(a)}D and {len(b)}D tensors")
    same_dtype(input, other, "input", "other", "dot : expected both vectors to have same dtype, but found {a} and {b}")
    if a != b:
        raise ShapeMismatch(
            f"inconsistent tensor size, expected tensor {text(a)} and src {text(b)} to have the same number of elements, "
            f"but got {a[0]} and {b[0]} elements respectively"
        )
    refuse_bool(input.dtype, "dot")
    return Spec((), input.dtype)


@op(family="linalg", meta=_dot_meta, save={"input": ("other",), "other": ("input",)},
    samples=[S(T(3), T(3)), S(T(0), T(0)), S(C(3), C(3)), S(I(3), I(3))])
def dot(k: K, input: Array, other: Array) -> Array:
    """The sum of the products of two vectors' elements; nothing is conjugated."""
    return multiply(k, input, other)


@dot.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g * F.conj(saved.other), need.other and g * F.conj(saved.input)


@op(family="linalg", meta=_dot_meta, save={"input": ("other",), "other": ("input",)},
    samples=[S(T(3), T(3)), S(T(0), T(0)), S(C(3), C(3)), S(I(3), I(3))])
def vdot(k: K, input: Array, other: Array) -> Array:
    """The sum of the products of two vectors' elements, the first one conjugated."""
    return multiply(k, k.xp.conjugate(input) if input.dtype.kind == "c" else input, other)


@vdot.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F.conj(g) * saved.other, need.other and g * saved.input


@composite(family="linalg", node="MulBackward0", moves=True, alias=("ger",),
           samples=[S(T(2), T(3)), S(T(0), T(2)), S(C(2), C(2)), S(I(2), I(3)), S(I(2), T(3))])
def outer(F: Any, input: Array, vec2: Array) -> Array:
    """The product of each element of a vector with each of another: (n) by (m) gives (n x m)."""
    for shape, name in ((F.shape(input), "self"), (F.shape(vec2), "vec2")):
        if len(shape) != 1:
            raise ShapeMismatch(f"outer: Expected 1-D argument {name}, but got {len(shape)}-D",
                                param="input" if name == "self" else name)
    return F.mul(F.reshape(input, (*F.shape(input), 1)), vec2)


@composite(family="linalg", moves=True, node="ViewBackward0",
           samples=[S(T(3), T(3)), S(T(2, 3), T(4, 3)), S(T(2, 2, 3), T(3)), S(T(), T(2)), S(C(2, 2), C(1, 2))])
def inner(F: Any, input: Array, other: Array) -> Array:
    """The sums of products along the last dimensions of both: (..., n) and (___, n) give (..., ___)."""
    a, b = F.shape(input), F.shape(other)
    if not a or not b:
        return F.mul(input, other)
    if F.dtype(input) is not F.dtype(other):
        x, y = Spec(a, F.dtype(input)), Spec(b, F.dtype(other))
        same_dtype(x, y, "input", "other", "both inputs should have same dtype")
    if a[-1] != b[-1]:
        raise ShapeMismatch(
            f"inner() the last dimension must match on both input tensors but got shapes {text(a)} and {text(b)}"
        )
    if len(a) == len(b) == 1:
        return F.reshape(F.dot(input, other), ())
    rows = F.reshape(input, (prod(a[:-1]), a[-1]))
    columns = F.reshape(other, (prod(b[:-1]), b[-1]))
    return F.reshape(F.mm(rows, F.transpose(columns, 0, 1)), (*a[:-1], *b[:-1]))


# ---------------------------------------------------------------- matmul


def _matmul_meta(k: K, input: Spec, other: Spec) -> Spec:
    a, b = input.shape, other.shape
    n, m = len(a), len(b)
    if n == 0 or m == 0:
        raise ShapeMismatch(f"both arguments to matmul need to be at least 1D, but they are {n}D and {m}D")
    if n == 1 and m == 1:
        return _dot_meta(k, input, other)
    if m == 1:
        if a[-1] != b[0]:
            rows = prod(a[:-1])
            raise _inner(a, b, f"size mismatch, got input ({rows}), mat ({rows}x{a[-1]}), vec ({b[0]})")
        words, kernel, shape = _ADDMV, "addmv_impl_cpu", a[:-1]
    elif m == 2:
        if a[-1] != b[0]:
            raise _cannot(a, b)
        words, kernel, shape = "", "addmm_impl_cpu_", (*a[:-1], b[1])
    else:
        batch = broadcast_two(a[:-2], b[:-2])
        if a[-1] != b[-2]:
            size = prod(batch)
            raise _inner(
                a, b, f"Expected size for first two dimensions of batch2 tensor to be: [{size}, {a[-1]}] but got: "
                f"[{size}, {b[-2]}]."
            )
        words, kernel = "expected scalar type {a} but found {b}", "bmm"
        shape = (*batch, *a[-2:-1], b[-1]) if n > 1 else (*batch, b[-1])
    same_dtype(input, other, "input", "other", words)
    refuse_bool(input.dtype, kernel)
    return Spec(shape, input.dtype)


def _matmul_node(input: Spec, other: Spec) -> str:
    n, m = input.ndim, other.ndim
    if n <= 2 and m <= 2:
        return {(1, 1): "DotBackward0", (2, 1): "MvBackward0", (1, 2): "SqueezeBackward4"}.get((n, m), "MmBackward0")
    return "UnsafeViewBackward0"


@op(family="linalg", meta=_matmul_meta, save={"input": ("other",), "other": ("input",)}, alias=("linalg.matmul",),
    node=_matmul_node,
    samples=[S(T(2, 3), T(3, 2)), S(T(3), T(3)), S(T(2, 3), T(3)), S(T(3), T(3, 2)), S(T(2, 2, 3), T(3, 2)),
             S(T(2, 2, 3), T(3)), S(T(3), T(2, 3, 2)), S(T(2, 3), T(2, 3, 2)), S(T(2, 1, 2, 3), T(2, 3, 2)),
             S(T(0, 2, 3), T(3, 2)), S(T(2, 0), T(0, 2)), S(C(2, 2, 2), C(2, 2)), S(I(2, 3), I(3, 2))])
def matmul(k: K, input: Array, other: Array) -> Array:
    """The matrix product of the last two dimensions, those before them broadcast as batches.

    A vector on the left is a row, on the right a column, and its dimension is gone from the result. Both of one dtype.
    """
    return multiply(k, input, other)


@matmul.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    a, b = saved.input, saved.other
    n, m = len(a.shape), len(b.shape)
    if n == 2 and m == 2:
        return need.input and F.mm(g, adjoint(F, b)), need.other and F.mm(adjoint(F, a), g)
    if n == 1 and m == 1:
        return need.input and g * F.conj(b), need.other and g * F.conj(a)
    inner_size = a.shape[-1]
    column = F.reshape(g, (*g.shape, 1))
    if m == 1:
        rows = prod(a.shape[:-1])
        return (
            need.input and column * F.conj(b),
            need.other and F.mv(adjoint(F, F.reshape(a, (rows, inner_size))), F.reshape(g, (rows,))),
        )
    if n == 1:
        return (
            need.input and F.reshape(F.matmul(F.conj(b), column), b.shape[:-1]),
            need.other and F.reshape(F.conj(a), (inner_size, 1)) * F.reshape(g, (*g.shape[:-1], 1, g.shape[-1])),
        )
    if m == 2:
        rows = prod(a.shape[:-1])
        g2 = F.reshape(g, (rows, b.shape[1]))
        return (
            need.input and F.reshape(F.mm(g2, adjoint(F, b)), a.shape),
            need.other and F.mm(adjoint(F, F.reshape(a, (rows, inner_size))), g2),
        )
    return need.input and F.matmul(g, adjoint(F, b)), need.other and F.matmul(adjoint(F, a), g)


# ---------------------------------------------------------------- sums with products


def _scaled(g: Any, factor: complex) -> Any:
    """A gradient times a factor's conjugate."""
    return g if factor == 1 else g * factor.conjugate()


def _plus(k: K, made: Array, input: Array, beta: complex, alpha: complex) -> Array:
    """beta * input + alpha * made, in the memory of `made`; nothing of the input is looked at where beta is 0."""
    if alpha != 1:
        made = times(alpha, made)
    if beta != 0:
        made = k.xp.add(made, times(beta, input), out=made) if made.size else made
    return made


def _addmm_meta(k: K, input: Spec, mat1: Spec, mat2: Spec, beta: Any, alpha: Any) -> Spec:
    a, b = mat1.shape, mat2.shape
    for name, s in (("mat1", mat1), ("mat2", mat2)):
        if s.ndim != 2:
            raise ShapeMismatch(f"{name} must be a matrix, got {s.ndim}-D tensor", param=name)
    if a[1] != b[0]:
        raise _cannot(a, b)
    check_expands(input.shape, (a[0], b[1]))
    same_dtype(input, mat2, "input", "mat2", "self and mat2 must have the same dtype, but got {a} and {b}")
    same_dtype(mat1, mat2, "mat1", "mat2", "mat1 and mat2 must have the same dtype, but got {a} and {b}")
    refuse_bool(mat2.dtype, "addmm_impl_cpu_")
    return Spec((a[0], b[1]), mat2.dtype)


@op(family="linalg", meta=_addmm_meta, save={"mat1": ("mat2",), "mat2": ("mat1",)}, inplace=True,
    samples=[S(T(2, 2), T(2, 3), T(3, 2), beta=0.5, alpha=2), S(T(2), T(2, 3), T(3, 2)), S(T(1, 2), T(2, 0), T(0, 2)),
             S(T(2, 2), T(2, 2), T(2, 2), beta=0), S(C(2), C(2, 2), C(2, 2), alpha=1 + 2j), S(I(2), I(2, 3), I(3, 2)),
             S(T(), T(2, 3), T(3, 2))])
def addmm(k: K, input: Array, mat1: Array, mat2: Array, beta: Scalar = 1, alpha: Scalar = 1) -> Array:
    """beta * input + alpha * (mat1 @ mat2). The input is broadcast to the product's shape."""
    return _plus(k, multiply(k, mat1, mat2), input, beta, alpha)


@addmm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = _scaled(g, saved.alpha)
    return (
        need.input and _scaled(g, saved.beta),
        need.mat1 and F.mm(scaled, adjoint(F, saved.mat2)),
        need.mat2 and F.mm(adjoint(F, saved.mat1), scaled),
    )


def _addmv_meta(k: K, input: Spec, mat: Spec, vec: Spec, beta: Any, alpha: Any) -> Spec:
    a, b = mat.shape, vec.shape
    if len(a) != 2 or len(b) != 1 or input.ndim > 1:
        raise ShapeMismatch(f"vector + matrix @ vector expected, got {input.ndim}, {len(a)}, {len(b)}")
    size = input.numel if input.ndim else 1
    if a[1] != b[0] or size not in (1, a[0]):
        raise _inner(a, b, f"size mismatch, got input ({size}), mat ({a[0]}x{a[1]}), vec ({b[0]})")
    for other, name in ((vec, "vec"), (input, "input")):
        if other.dtype is not mat.dtype:
            names = ", ".join(scalar_type(s.dtype) for s in (input, mat))
            raise DtypeMismatch(
                f"addmv input tensors must have the same dtype, but got {names}, and {scalar_type(vec.dtype)}",
                hint=cast_hint(mat, other, "mat", name),
                param=name,
            )
    refuse_bool(mat.dtype, "addmv_impl_cpu")
    return Spec(a[:1], mat.dtype)


@op(family="linalg", meta=_addmv_meta, save={"mat": ("vec",), "vec": ("mat",)}, inplace=True,
    samples=[S(T(2), T(2, 3), T(3)), S(T(1), T(2, 3), T(3), beta=0.5, alpha=2), S(T(2), T(2, 0), T(0)),
             S(T(), T(2, 2), T(2), beta=0), S(C(2), C(2, 2), C(2)), S(I(2), I(2, 3), I(3))])
def addmv(k: K, input: Array, mat: Array, vec: Array, beta: Scalar = 1, alpha: Scalar = 1) -> Array:
    """beta * input + alpha * (mat @ vec)."""
    return _plus(k, multiply(k, mat, vec), input, beta, alpha)


@addmv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = _scaled(g, saved.alpha)
    return (
        need.input and _scaled(g, saved.beta),
        need.mat and F.outer(scaled, F.conj(saved.vec)),
        need.vec and F.mv(adjoint(F, saved.mat), scaled),
    )


def _batches(batch1: Spec, batch2: Spec) -> None:
    a, b = batch1.shape, batch2.shape
    for name, shape in (("batch1", a), ("batch2", b)):
        if len(shape) != 3:
            raise ShapeMismatch(f"{name} must be a 3D tensor", param=name)
    if a[0] != b[0]:
        raise ShapeMismatch(f"batch1 and batch2 must have same number of batches, got {a[0]} and {b[0]}", param="batch2")
    if a[2] != b[1]:
        raise _inner(a, b, f"Incompatible matrix sizes for bmm ({a[1]}x{a[2]} and {b[1]}x{b[2]})")


def _addbmm_meta(k: K, input: Spec, batch1: Spec, batch2: Spec, beta: Any, alpha: Any) -> Spec:
    _batches(batch1, batch2)
    shape = (batch1.shape[1], batch2.shape[2])
    check_expands(input.shape, shape)
    words = "self and mat2 must have the same dtype, but got {a} and {b}"
    same_dtype(input, batch2, "input", "batch2", words)
    same_dtype(batch1, batch2, "batch1", "batch2", words.replace("self", "mat1"))
    refuse_bool(batch2.dtype, "addmm_impl_cpu_")
    return Spec(shape, batch2.dtype)


@op(family="linalg", meta=_addbmm_meta, save={"batch1": ("batch2",), "batch2": ("batch1",)}, inplace=True,
    samples=[S(T(2, 2), T(2, 2, 3), T(2, 3, 2)), S(T(2), T(2, 2, 3), T(2, 3, 2), beta=0.5, alpha=2),
             S(T(2, 2), T(0, 2, 3), T(0, 3, 2)), S(C(2, 2), C(2, 2, 2), C(2, 2, 2)), S(I(2), I(2, 2, 3), I(2, 3, 2))])
def addbmm(k: K, input: Array, batch1: Array, batch2: Array, beta: Scalar = 1, alpha: Scalar = 1) -> Array:
    """beta * input + alpha * the sum of all products of a batch: one product with long rows."""
    b, n, m = batch1.shape
    rows = batch1.swapaxes(0, 1).reshape(n, b * m)
    return _plus(k, multiply(k, rows, batch2.reshape(b * m, batch2.shape[2])), input, beta, alpha)


@addbmm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = _scaled(g, saved.alpha)
    return (
        need.input and _scaled(g, saved.beta),
        need.batch1 and F.matmul(scaled, adjoint(F, saved.batch2)),
        need.batch2 and F.matmul(adjoint(F, saved.batch1), scaled),
    )


def _baddbmm_meta(k: K, input: Spec, batch1: Spec, batch2: Spec, beta: Any, alpha: Any) -> Spec:
    a, b = batch1.shape, batch2.shape
    for name, shape in (("batch1", a), ("batch2", b)):
        if len(shape) != 3:
            raise ShapeMismatch(f"{name} must be a 3D tensor", param=name)
    check_expands(input.shape, (a[0], a[1], b[2]))
    _bmm_meta(k, Spec(a, batch1.dtype), Spec(b, batch1.dtype))
    same_dtype(batch1, batch2, "batch1", "batch2", "expected scalar type {a} but found {b}")
    if input.dtype is not batch1.dtype:
        x, y = C_NAMES[input.dtype.name], C_NAMES[batch1.dtype.name]
        raise DtypeMismatch(
            f"Input dtypes must be the same, got: input {x}, batch1: {y}, batch2: {y}",
            hint=cast_hint(batch1, input, "batch1", "input"),
            param="input",
        )
    return Spec((a[0], a[1], b[2]), batch1.dtype)


@op(family="linalg", meta=_baddbmm_meta, save={"batch1": ("batch2",), "batch2": ("batch1",)}, inplace=True,
    samples=[S(T(2, 2, 2), T(2, 2, 3), T(2, 3, 2)), S(T(2), T(2, 2, 3), T(2, 3, 2), beta=0.5, alpha=2),
             S(T(0, 2, 2), T(0, 2, 3), T(0, 3, 2)), S(C(1, 2, 2), C(1, 2, 2), C(1, 2, 2)),
             S(I(2), I(2, 2, 3), I(2, 3, 2))])
def baddbmm(k: K, input: Array, batch1: Array, batch2: Array, beta: Scalar = 1, alpha: Scalar = 1) -> Array:
    """beta * input + alpha * (batch1 @ batch2), batch by batch. The input is broadcast."""
    return _plus(k, multiply(k, batch1, batch2), input, beta, alpha)


@baddbmm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = _scaled(g, saved.alpha)
    return (
        need.input and _scaled(g, saved.beta),
        need.batch1 and F.bmm(scaled, adjoint(F, saved.batch2)),
        need.batch2 and F.bmm(adjoint(F, saved.batch1), scaled),
    )


def _addr_meta(k: K, input: Spec, vec1: Spec, vec2: Spec, beta: Any, alpha: Any) -> Spec:
    for name, s in (("vec1", vec1), ("vec2", vec2)):
        if s.ndim != 1:
            raise ShapeMismatch(f"addr: Expected 1-D argument {name}, but got {s.ndim}-D", param=name)
    shape = (vec1.shape[0], vec2.shape[0])
    check_expands(input.shape, shape)
    for name, factor in (("beta", beta), ("alpha", alpha)):
        if type(factor) in (float, complex) and k.dtype.category < FLOAT:
            raise DtypeMismatch(
                f"For integral input tensors, argument {name} must not be a floating point number.", param=name
            )
        fitting(factor, k.dtype, name)
    return Spec(shape, k.dtype)


@op(family="linalg", meta=_addr_meta, promote="arithmetic", over=("input", "vec1", "vec2"), inplace=True,
    save={"vec1": ("vec2",), "vec2": ("vec1",)},
    samples=[S(T(2, 3), T(2), T(3)), S(T(3), T(2), T(3), beta=0.5, alpha=2), S(T(0, 2), T(0), T(2)),
             S(C(2, 2), C(2), C(2)), S(I(2, 3), I(2), I(3)), S(T(2, 2), T(2), T(2), beta=0)])
def addr(k: K, input: Array, vec1: Array, vec2: Array, beta: Scalar = 1, alpha: Scalar = 1) -> Array:
    """beta * input + alpha * outer(vec1, vec2)."""
    made = times(alpha, vec1[:, None] * vec2)
    if beta == 0:
        return made
    return made + times(beta, input) if made.dtype.kind != "b" else made | times(beta, input)


@addr.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = _scaled(g, saved.alpha)
    return (
        need.input and _scaled(g, saved.beta),
        need.vec1 and F.mv(scaled, F.conj(saved.vec2)),
        need.vec2 and F.mv(F.transpose(scaled, 0, 1), F.conj(saved.vec1)),
    )


# ---------------------------------------------------------------- linear


def _linear_meta(k: K, input: Spec, weight: Spec, bias: Spec | None = None) -> Spec:
    a, w = input.shape, weight.shape
    if len(w) == 2 and len(a) >= 1 and (bias is None or bias.dtype is weight.dtype):
        if a[-1] == w[1] and input.dtype is weight.dtype:
            out = (*a[:-1], w[0])
            if bias is not None and bias.shape != w[:1]:
                check_expands(bias.shape, out, "bias")
            refuse_bool(weight.dtype, "addmm_impl_cpu_")
            return Spec(out, input.dtype)
    if len(w) > 2:
        raise ShapeMismatch(f"t() expects a tensor with <= 2 dimensions, but self is {len(w)}D", param="weight")
    if not a or not w:
        raise ShapeMismatch(
            f"both arguments to linear need to be at least 1D, but they are {len(a)}D and {len(w)}D",
            param="input" if not a else "weight",
        )
    if len(w) == 1:
        if bias is not None:
            raise ShapeMismatch("mat2 must be a matrix, got 1-D tensor", param="weight")
        return _matmul_meta(k, input, weight)
    if a[-1] != w[1]:
        raise _inner(a, w[::-1], f"mat1 and mat2 shapes cannot be multiplied ({prod(a[:-1])}x{a[-1]} and {w[1]}x{w[0]})")
    if bias is None:
        same_dtype(input, weight, "input", "weight")
        raise AssertionError
    words = "{name} and mat2 must have the same dtype, but got {{a}} and {{b}}"
    same_dtype(bias, weight, "bias", "weight", words.format(name="self"))
    same_dtype(input, weight, "input", "weight", words.format(name="mat1"))
    raise AssertionError


def _linear_node(input: Spec, weight: Spec, bias: Spec | None) -> str:
    if input.ndim == 2 and weight.ndim == 2:
        return "MmBackward0" if bias is None else "AddmmBackward0"
    return _matmul_node(input, weight) if bias is None or weight.ndim == 1 else "ViewBackward0"


@op(family="linalg", name="nn.functional.linear", meta=_linear_meta, node=_linear_node,
    save={"input": ("weight",), "weight": ("input",)},
    samples=[S(T(2, 3), T(2, 3), T(2)), S(T(2, 3), T(2, 3)), S(T(3), T(2, 3), T(2)), S(T(2, 2, 3), T(2, 3), T(2)),
             S(T(2, 3), T(3)), S(T(0, 3), T(2, 3), T(2)), S(T(2, 0), T(2, 0), T(2)), S(C(2, 2), C(3, 2), C(3)),
             S(I(2, 3), I(2, 3), I(2)), S(T(2, 3), T(2, 3), T(2, 2))])
def linear(k: K, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """input @ weight.T + bias. Shapes: (..., in), (out, in), (out) give (..., out); all of one dtype."""
    if weight.ndim == 1:
        return multiply(k, input, weight)
    made = multiply(k, input, weight.T)
    return made if bias is None or not made.size else k.xp.add(made, bias, out=made)


@linear.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, w = saved.input, saved.weight
    shape, sizes = x.shape, w.shape
    if len(sizes) == 1:
        g = F.reshape(g, (*g.shape, 1))
        w = F.reshape(w, (1, *sizes)) if need.input else w
    flat = g
    if len(shape) != 2:
        rows = prod(shape[:-1])
        flat = F.reshape(g, (rows, g.shape[-1]))
        x = F.reshape(x, (rows, shape[-1])) if need.weight else x
    to_input = need.input and F.mm(flat, F.conj(w))
    to_weight = need.weight and F.mm(F.transpose(flat, 0, 1), F.conj(x))
    if len(shape) != 2 and need.input:
        to_input = F.reshape(to_input, shape)
    if len(sizes) == 1 and need.weight:
        to_weight = F.reshape(to_weight, sizes)
    return to_input, to_weight, need.bias and g  # the driver sums it


@composite(family="linalg", name="nn.functional.bilinear",
           samples=[S(T(2, 3), T(2, 2), T(2, 3, 2), T(2)), S(T(2, 3), T(2, 2), T(2, 3, 2)), S(T(3), T(2), T(4, 3, 2), T(4))])
def bilinear(F: Any, input1: Array, input2: Array, weight: Array, bias: Array | None = None) -> Array:
    """input1 @ weight[o] @ input2 + bias[o] for each output o. Shapes: (..., n), (..., m), (out, n, m), (out)."""
    a, b, w = F.shape(input1), F.shape(input2), F.shape(weight)
    words = ""
    if len(a) != len(b):
        words = f"input dimensions do not match: got {len(a)} and {len(b)}"
    elif a[:-1] != b[:-1]:
        at = next(i for i, (n, m) in enumerate(zip(a, b, strict=True)) if n != m)
        words = f"input batch dimensions do not match at dim {at}: got {a[at]} and {b[at]}"
    elif a[-1] != w[1]:
        words = f"input1 size does not match weight size: got {a[-1]} but expected {w[1]}"
    elif b[-1] != w[2]:
        words = f"input2 size does not match weight size: got {b[-1]} but expected {w[2]}"
    elif bias is not None and F.shape(bias) != w[:1]:
        words = f"bias size does not match weight size: got {F.shape(bias)[0]} but expected {w[0]}"
    if words:
        raise ShapeMismatch(f"bilinear(): {words}")
    rows = prod(a[:-1])
    x = F.reshape(input1, (rows, a[-1]))
    y = F.reshape(input2, (rows, b[-1]))
    made = F.einsum("bi,oij,bj->bo", [x, weight, y])
    if bias is not None:
        made = F.add(made, bias)
    return F.reshape(made, (*a[:-1], w[0]))
