"""Products of matrices and vectors."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import BOOL, C_NAMES, DType, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Param, ShapeMismatch
from engine.op import Spec
from engine.samples import C, I, S, T
from engine.shapes import Shape, broadcast_two, text

# ---------------------------------------------------------------- kernels

# Products of fewer multiplications are left to NumPy's plain loops; splitting them costs more than it saves.
SMALL_WHOLE = 1 << 15


# Of float32 by a transposed matrix: OpenBLAS has a fast kernel for so few results of sums that are long enough, and for
# the forms without a transposed matrix one for so few multiplications.
_FEW_RESULTS, _LONG, _SMALL_PRODUCT = 1200, 32, 1_000_000
_LIGHT = 1 << 13  # elements of a matrix that is rather copied in the other order than multiplied as it is


def multiply(k: K, a: Array, b: Array) -> Array:
    """a @ b, by NumPy's rules of ranks; integers exactly, modulo their width."""
    if a.dtype.kind in "iu" and k.backend.kind == "cpu" and a.ndim and b.ndim and a.size and b.size:
        columns = b.shape[-1] if b.ndim > 1 else 1
        if a.size * columns * (b.size // (b.shape[-2] * columns) if b.ndim > a.ndim else 1) > SMALL_WHOLE:
            return _whole(k, a, b)
    elif a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and a.size:
        return multiply(k, a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    elif slow_in_blas(k, a, b):
        (m, inner), n = a.shape, b.shape[1]
        if is_wide(m, inner, n):
            return turned_product(a, b).copy()
        if m >= 32 and (inner < _LONG or inner * n <= _LIGHT) and m * inner * n <= _SMALL_PRODUCT:
            return a @ b.copy()
    return a @ b


def slow_in_blas(k: K, a: Array, b: Array) -> bool:
    """Whether a is a float32 matrix and b a transposed one, and their product none that is fast in OpenBLAS."""
    if a.dtype.char != "f" or a.ndim != 2 or b.ndim != 2 or b.flags.c_contiguous or not k.backend.slow_at_transposed:
        return False
    if not (a.flags.c_contiguous and b.flags.f_contiguous):
        return False
    m, inner = a.shape
    return bool(m > 1 and (m * b.shape[1] > _FEW_RESULTS or inner < _LONG))


def is_wide(m: int, inner: int, n: int) -> bool:
    """Whether an (m x inner) by (inner x n) product that is slow in OpenBLAS is faster as b.T @ a.T, turned back.

    Measured for 1 to 4096 rows and 8 to 4096 columns: it then takes 0.14 to 1.0 of the time, 0.6 in the geometric mean.
    """
    return n >= 2 * m and inner >= max(2 * m, _LONG)


def turned_product(a: Array, b: Array) -> Array:
    """a @ b as the transpose of b.T @ a.T."""
    small = a.shape[0] * a.shape[1] * b.shape[1] <= _SMALL_PRODUCT
    return (b.T @ (a.T.copy() if small else a.T)).T


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


def mismatched(a: Shape, b: Shape, words: str) -> ShapeMismatch:
    """The error of a product whose inner sizes differ."""
    return ShapeMismatch(words, hint=Hint("inner-sizes", a=list(a), b=list(b)))


def cannot_multiply(a: Shape, b: Shape) -> ShapeMismatch:
    """The error of a product with a matrix."""
    rows = prod(a[:-1])
    return mismatched(a, b, f"mat1 and mat2 shapes cannot be multiplied ({rows}x{a[-1]} and {b[-2]}x{b[-1]})")


# ---------------------------------------------------------------- two operands


def adjoint(F: Any, x: Any) -> Any:
    """The conjugate transpose of a matrix, or of each in a batch."""
    return F.conj(F.transpose(x, -2, -1))


_ANY_RANK = Hint("matmul-any", Call("matmul", {"input": Param("input"), "other": Param("mat2")}))


def _mm_meta(k: K, input: Spec, mat2: Spec) -> Spec:
    a, b = input.shape, mat2.shape
    if len(a) != 2:
        raise ShapeMismatch("self must be a matrix", param="input", hint=_ANY_RANK)
    if len(b) != 2:
        raise ShapeMismatch("mat2 must be a matrix", param="mat2", hint=_ANY_RANK)
    if a[1] != b[0]:
        raise cannot_multiply(a, b)
    if input.dtype is not mat2.dtype or input.dtype.category == BOOL:
        same_dtype(input, mat2, "input", "mat2")
        refuse_bool(input.dtype, "addmm_impl_cpu_")
    return Spec((a[0], b[1]), input.dtype)


@op(
    family="linalg",
    meta=_mm_meta,
    row_major=True,
    save={"input": ("mat2",), "mat2": ("input",)},
    samples=[S(T(2, 3), T(3, 4)), S(T(0, 3), T(3, 2)), S(T(2, 0), T(0, 2)), S(C(2, 2), C(2, 3)), S(I(2, 3), I(3, 2))],
)
def mm(k: K, input: Array, mat2: Array) -> Array:
    """The matrix product of two matrices, (n x m) by (m x p); both of one dtype."""
    return multiply(k, input, mat2)


@mm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (need.input and F.mm(g, adjoint(F, saved.mat2)), need.mat2 and F.mm(adjoint(F, saved.input), g))


_ONE_FOR_ALL = Hint("matmul-instead", Call("matmul", {"input": Param("input"), "other": Param("mat2")}))


def bmm_meta(k: K, input: Spec, mat2: Spec) -> Spec:
    """The result of a batch of products."""
    a, b = input.shape, mat2.shape
    if len(a) != 3:
        raise ShapeMismatch("batch1 must be a 3D tensor", param="input", hint=_ONE_FOR_ALL)
    if len(b) != 3:
        raise ShapeMismatch("batch2 must be a 3D tensor", param="mat2", hint=_ONE_FOR_ALL)
    if a[0] != b[0] or a[2] != b[1]:
        raise mismatched(
            a,
            b,
            f"Expected size for first two dimensions of batch2 tensor to be: [{a[0]}, {a[2]}] but got: "
            f"[{b[0]}, {b[1]}].",
        )
    refuse_bool(input.dtype, "bmm")
    same_dtype(input, mat2, "input", "mat2", "expected scalar type {a} but found {b}")
    return Spec((a[0], a[1], b[2]), input.dtype)


@op(
    family="linalg",
    meta=bmm_meta,
    row_major=True,
    save={"input": ("mat2",), "mat2": ("input",)},
    samples=[
        S(T(2, 2, 3), T(2, 3, 2)),
        S(T(0, 2, 3), T(0, 3, 2)),
        S(T(2, 2, 0), T(2, 0, 2)),
        S(C(1, 2, 2), C(1, 2, 2)),
        S(I(2, 2, 3), I(2, 3, 2)),
    ],
)
def bmm(k: K, input: Array, mat2: Array) -> Array:
    """The matrix products of two batches of matrices, (b x n x m) by (b x m x p); both of one dtype."""
    return multiply(k, input, mat2)


@bmm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (need.input and F.bmm(g, adjoint(F, saved.mat2)), need.mat2 and F.bmm(adjoint(F, saved.input), g))


ADDMV = "addmv input tensors must have the same dtype, but got {b}, {a}, and {b}"


def _mv_meta(k: K, input: Spec, vec: Spec) -> Spec:
    a, b = input.shape, vec.shape
    if len(a) != 2 or len(b) != 1:
        raise ShapeMismatch(
            f"vector + matrix @ vector expected, got 1, {len(a)}, {len(b)}", param="input" if len(a) != 2 else "vec"
        )
    if a[1] != b[0]:
        raise mismatched(a, b, f"size mismatch, got input ({a[0]}), mat ({a[0]}x{a[1]}), vec ({b[0]})")
    same_dtype(input, vec, "input", "vec", ADDMV)
    refuse_bool(input.dtype, "addmv_impl_cpu")
    return Spec(a[:1], input.dtype)


@op(
    family="linalg",
    meta=_mv_meta,
    save={"input": ("vec",), "vec": ("input",)},
    samples=[S(T(2, 3), T(3)), S(T(2, 0), T(0)), S(C(2, 2), C(2)), S(I(2, 3), I(3))],
)
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
            f"inconsistent tensor size, expected tensor {text(a)} and src {text(b)} to have the same number of "
            "elements, "
            f"but got {a[0]} and {b[0]} elements respectively"
        )
    refuse_bool(input.dtype, "dot")
    return Spec((), input.dtype)


@op(
    family="linalg",
    meta=_dot_meta,
    save={"input": ("other",), "other": ("input",)},
    samples=[S(T(3), T(3)), S(T(0), T(0)), S(C(3), C(3)), S(I(3), I(3))],
)
def dot(k: K, input: Array, other: Array) -> Array:
    """The sum of the products of two vectors' elements; nothing is conjugated."""
    return multiply(k, input, other)


@dot.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g * F.conj(saved.other), need.other and g * F.conj(saved.input)


@op(
    family="linalg",
    meta=_dot_meta,
    save={"input": ("other",), "other": ("input",)},
    samples=[S(T(3), T(3)), S(T(0), T(0)), S(C(3), C(3)), S(I(3), I(3))],
)
def vdot(k: K, input: Array, other: Array) -> Array:
    """The sum of the products of two vectors' elements, the first one conjugated."""
    return multiply(k, k.xp.conjugate(input) if input.dtype.kind == "c" else input, other)


@vdot.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F.conj(g) * saved.other, need.other and g * saved.input


@composite(
    family="linalg",
    node="MulBackward0",
    moves=True,
    alias=("ger",),
    samples=[S(T(2), T(3)), S(T(0), T(2)), S(C(2), C(2)), S(I(2), I(3)), S(I(2), T(3))],
)
def outer(F: Any, input: Array, vec2: Array) -> Array:
    """The product of each element of a vector with each of another: (n) by (m) gives (n x m)."""
    for shape, name in ((F.shape(input), "self"), (F.shape(vec2), "vec2")):
        if len(shape) != 1:
            raise ShapeMismatch(
                f"outer: Expected 1-D argument {name}, but got {len(shape)}-D",
                param="input" if name == "self" else name,
            )
    return F.mul(F.reshape(input, (*F.shape(input), 1)), vec2)


@composite(
    family="linalg",
    moves=True,
    node="ViewBackward0",
    samples=[S(T(3), T(3)), S(T(2, 3), T(4, 3)), S(T(2, 2, 3), T(3)), S(T(), T(2)), S(C(2, 2), C(1, 2))],
)
def inner(F: Any, input: Array, other: Array) -> Array:
    """The sums of products along the last dimensions of both: (..., n) and (___, n) give (..., ___)."""
    a, b = F.shape(input), F.shape(other)
    if not a or not b:
        return F.mul(input, other)
    if a[-1] != b[-1]:
        raise ShapeMismatch(
            f"inner() the last dimension must match on both input tensors but got shapes {text(a)} and {text(b)}"
        )
    if F.dtype(input) is not F.dtype(other):
        x, y = Spec(a, F.dtype(input)), Spec(b, F.dtype(other))
        same_dtype(x, y, "input", "other", "both inputs should have same dtype")
    if len(a) == len(b) == 1:
        return F.reshape(F.dot(input, other), ())
    rows = F.reshape(input, (prod(a[:-1]), a[-1]))
    columns = F.reshape(other, (prod(b[:-1]), b[-1]))
    return F.reshape(F.mm(rows, F.transpose(columns, 0, 1)), (*a[:-1], *b[:-1]))


# ---------------------------------------------------------------- matmul


def matmul_meta(k: K, input: Spec, other: Spec) -> Spec:
    """The result of a product of any ranks."""
    a, b = input.shape, other.shape
    n, m = len(a), len(b)
    if n == 0 or m == 0:
        raise ShapeMismatch(f"both arguments to matmul need to be at least 1D, but they are {n}D and {m}D")
    if n == 1 and m == 1:
        return _dot_meta(k, input, other)
    if m == 1:
        if a[-1] != b[0]:
            rows = prod(a[:-1])
            raise mismatched(a, b, f"size mismatch, got input ({rows}), mat ({rows}x{a[-1]}), vec ({b[0]})")
        words, kernel, shape = ADDMV, "addmv_impl_cpu", a[:-1]
    elif m == 2:
        if a[-1] != b[0]:
            raise cannot_multiply(a, b)
        words, kernel, shape = "", "addmm_impl_cpu_", (*a[:-1], b[1])
    else:
        batch = broadcast_two(a[:-2], b[:-2])
        if a[-1] != b[-2]:
            size = prod(batch)
            raise mismatched(
                a,
                b,
                f"Expected size for first two dimensions of batch2 tensor to be: [{size}, {a[-1]}] but got: "
                f"[{size}, {b[-2]}].",
            )
        words, kernel = "expected scalar type {a} but found {b}", "bmm"
        shape = (*batch, *a[-2:-1], b[-1]) if n > 1 else (*batch, b[-1])
    same_dtype(input, other, "input", "other", words)
    refuse_bool(input.dtype, kernel)
    return Spec(shape, input.dtype)


def matmul_node(input: Spec, other: Spec) -> str:
    """PyTorch's grad_fn of a product of any ranks."""
    n, m = input.ndim, other.ndim
    if n <= 2 and m <= 2:
        return {(1, 1): "DotBackward0", (2, 1): "MvBackward0", (1, 2): "SqueezeBackward4"}.get((n, m), "MmBackward0")
    return "UnsafeViewBackward0"


@op(
    family="linalg",
    meta=matmul_meta,
    row_major=True,
    save={"input": ("other",), "other": ("input",)},
    alias=("linalg.matmul",),
    node=matmul_node,
    samples=[
        S(T(2, 3), T(3, 2)),
        S(T(3), T(3)),
        S(T(2, 3), T(3)),
        S(T(3), T(3, 2)),
        S(T(2, 2, 3), T(3, 2)),
        S(T(2, 2, 3), T(3)),
        S(T(3), T(2, 3, 2)),
        S(T(2, 3), T(2, 3, 2)),
        S(T(2, 1, 2, 3), T(2, 3, 2)),
        S(T(0, 2, 3), T(3, 2)),
        S(T(2, 0), T(0, 2)),
        S(C(2, 2, 2), C(2, 2)),
        S(I(2, 3), I(3, 2)),
    ],
)
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
