"""Products added to something: addmm and its kin, linear, bilinear."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, C_NAMES, FLOAT, float32, from_numpy, scalar_type
from engine.errors import Bug, DtypeMismatch, ShapeMismatch
from engine.op import Spec
from engine.ops.common import fitting, joint, times
from engine.ops.products import (
    adjoint,
    bmm_meta,
    cannot_multiply,
    cast_hint,
    check_expands,
    is_wide,
    matmul_meta,
    matmul_node,
    mismatched,
    multiply,
    refuse_bool,
    same_dtype,
    slow_in_blas,
    turned_product,
)
from engine.samples import C, I, S, T
from engine.shapes import Shape, broadcast_two, text, wrap_dim

# ---------------------------------------------------------------- sums with products


def _scaled(g: Any, factor: complex) -> Any:
    """A gradient times a factor's conjugate."""
    return g if factor == 1 else g * factor.conjugate()


def _plus(k: K, made: Array, input: Array, beta: complex, alpha: complex) -> Array:
    """beta * input + alpha * made, in the memory of `made`; nothing of the input is looked at where beta is 0."""
    for name, factor in (("beta", beta), ("alpha", alpha)):
        fitting(factor, from_numpy(made.dtype) or float32, name)
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
        raise cannot_multiply(a, b)
    check_expands(input.shape, (a[0], b[1]))
    same_dtype(input, mat2, "input", "mat2", "self and mat2 must have the same dtype, but got {a} and {b}")
    same_dtype(mat1, mat2, "mat1", "mat2", "mat1 and mat2 must have the same dtype, but got {a} and {b}")
    refuse_bool(mat2.dtype, "addmm_impl_cpu_")
    return Spec((a[0], b[1]), mat2.dtype)


@op(
    family="linalg",
    meta=_addmm_meta,
    row_major=True,
    save={"mat1": ("mat2",), "mat2": ("mat1",)},
    inplace=True,
    samples=[
        S(T(2, 2), T(2, 3), T(3, 2), beta=0.5, alpha=2),
        S(T(2), T(2, 3), T(3, 2)),
        S(T(1, 2), T(2, 0), T(0, 2)),
        S(T(2, 2), T(2, 2), T(2, 2), beta=0),
        S(C(2), C(2, 2), C(2, 2), alpha=1 + 2j),
        S(I(2), I(2, 3), I(3, 2)),
        S(T(), T(2, 3), T(3, 2)),
    ],
)
def addmm(k: K, input: Array, mat1: Array, mat2: Array, beta: Scalar = 1, alpha: Scalar = 1) -> Array:
    """beta * input + alpha * (mat1 @ mat2). The input is broadcast to the product's shape."""
    return _plus(k, multiply(k, mat1, mat2), input, beta, alpha if mat1.shape[1] else 1)  # no terms to scale


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
        raise mismatched(a, b, f"size mismatch, got input ({size}), mat ({a[0]}x{a[1]}), vec ({b[0]})")
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


@op(
    family="linalg",
    meta=_addmv_meta,
    save={"mat": ("vec",), "vec": ("mat",)},
    inplace=True,
    samples=[
        S(T(2), T(2, 3), T(3)),
        S(T(1), T(2, 3), T(3), beta=0.5, alpha=2),
        S(T(2), T(2, 0), T(0)),
        S(T(), T(2, 2), T(2), beta=0),
        S(C(2), C(2, 2), C(2)),
        S(I(2), I(2, 3), I(3)),
    ],
)
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
        raise ShapeMismatch(
            f"batch1 and batch2 must have same number of batches, got {a[0]} and {b[0]}", param="batch2"
        )
    if a[2] != b[1]:
        raise mismatched(a, b, f"Incompatible matrix sizes for bmm ({a[1]}x{a[2]} and {b[1]}x{b[2]})")


def _expanded(input: Spec, *sizes: tuple[Spec, int]) -> Shape:
    """The sizes that the input is spread to: PyTorch asks for them before it looks at anything else."""
    shape = tuple([s.shape[wrap_dim(at, s.ndim, scalar_ok=False)] for s, at in sizes])
    check_expands(input.shape, shape)
    return shape


def _addbmm_meta(k: K, input: Spec, batch1: Spec, batch2: Spec, beta: Any, alpha: Any) -> Spec:
    shape = _expanded(input, (batch1, 1), (batch2, 2))
    _batches(batch1, batch2)
    words = "self and mat2 must have the same dtype, but got {a} and {b}"
    same_dtype(input, batch2, "input", "batch2", words)
    same_dtype(batch1, batch2, "batch1", "batch2", words.replace("self", "mat1"))
    refuse_bool(batch2.dtype, "addmm_impl_cpu_")
    return Spec(shape, batch2.dtype)


@op(
    family="linalg",
    meta=_addbmm_meta,
    save={"batch1": ("batch2",), "batch2": ("batch1",)},
    inplace=True,
    samples=[
        S(T(2, 2), T(2, 2, 3), T(2, 3, 2)),
        S(T(2), T(2, 2, 3), T(2, 3, 2), beta=0.5, alpha=2),
        S(T(2, 2), T(0, 2, 3), T(0, 3, 2)),
        S(C(2, 2), C(2, 2, 2), C(2, 2, 2)),
        S(I(2), I(2, 2, 3), I(2, 3, 2)),
    ],
)
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
    made = _expanded(input, (batch1, 0), (batch1, 1), (batch2, 2))
    if input.dtype is not batch1.dtype:
        x, y, z = (C_NAMES[s.dtype.name] for s in (input, batch1, batch2))
        raise DtypeMismatch(
            f"Input dtypes must be the same, got: input {x}, batch1: {y}, batch2: {z}",
            hint=cast_hint(batch1, input, "batch1", "input"),
            param="input",
        )
    for name, shape in (("batch1", a), ("batch2", b)):
        if len(shape) != 3:
            raise ShapeMismatch(f"{name} must be a 3D tensor", param=name)
    refuse_bool(batch1.dtype, "baddbmm")
    bmm_meta(k, Spec(a, batch1.dtype), Spec(b, batch1.dtype))
    same_dtype(batch1, batch2, "batch1", "batch2", "expected scalar type {a} but found {b}")
    return Spec(made, batch1.dtype)


@op(
    family="linalg",
    meta=_baddbmm_meta,
    row_major=True,
    save={"batch1": ("batch2",), "batch2": ("batch1",)},
    inplace=True,
    samples=[
        S(T(2, 2, 2), T(2, 2, 3), T(2, 3, 2)),
        S(T(2), T(2, 2, 3), T(2, 3, 2), beta=0.5, alpha=2),
        S(T(0, 2, 2), T(0, 2, 3), T(0, 3, 2)),
        S(C(1, 2, 2), C(1, 2, 2), C(1, 2, 2)),
        S(I(2), I(2, 2, 3), I(2, 3, 2)),
    ],
)
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
        if type(factor) is bool and k.dtype.category != BOOL:
            raise DtypeMismatch(f"Boolean {name} only supported for Boolean results.", param=name)
        if type(factor) in (float, complex) and k.dtype.category < FLOAT:
            raise DtypeMismatch(
                f"For integral input tensors, argument {name} must not be a floating point number.", param=name
            )
        fitting(factor, k.dtype, name)
    return Spec(shape, k.dtype)


def _addr_types(k: K, input: Any, vec1: Any, vec2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """A 0-d input counts as what it is expanded to."""
    return joint(k, "arithmetic", Spec((1,), input.dtype) if type(input) is Spec else input, vec1, vec2)


@op(
    family="linalg",
    meta=_addr_meta,
    promote=_addr_types,
    over=("input", "vec1", "vec2"),
    inplace=True,
    save={"vec1": ("vec2",), "vec2": ("vec1",)},
    samples=[
        S(T(2, 3), T(2), T(3)),
        S(T(3), T(2), T(3), beta=0.5, alpha=2),
        S(T(0, 2), T(0), T(2)),
        S(C(2, 2), C(2), C(2)),
        S(I(2, 3), I(2), I(3)),
        S(T(2, 2), T(2), T(2), beta=0),
    ],
)
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
    d = weight.dtype
    if len(w) == 2 and a and a[-1] == w[1] and input.dtype is d and (bias is None or bias.dtype is d):
        out = (*a[:-1], w[0])
        if bias is not None and bias.shape != w[:1]:
            if bias.ndim > 1 and len(a) != 2:
                joint = broadcast_two(out, bias.shape)
                if joint[-len(out) :] != out or (joint != out and (len(a) > 1 or prod(joint) != w[0])):
                    words = f"output with shape {text(out)} doesn't match the broadcast shape {text(joint)}"
                    raise ShapeMismatch(words, param="bias")
            else:
                check_expands(bias.shape, out if bias.ndim > 1 else (prod(a[:-1]), w[0]), "bias")
        refuse_bool(d, "addmm_impl_cpu_")
        return Spec(out, d)
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
        return matmul_meta(k, input, weight)
    if a[-1] != w[1]:
        raise mismatched(
            a, w[::-1], f"mat1 and mat2 shapes cannot be multiplied ({prod(a[:-1])}x{a[-1]} and {w[1]}x{w[0]})"
        )
    if bias is None:
        same_dtype(input, weight, "input", "weight")
        raise Bug("nn.functional.linear was refused without a reason")
    words = "{name} and mat2 must have the same dtype, but got {{a}} and {{b}}"
    same_dtype(bias, weight, "bias", "weight", words.format(name="self"))
    same_dtype(input, weight, "input", "weight", words.format(name="mat1"))
    raise Bug("nn.functional.linear was refused without a reason")


def _linear_node(input: Spec, weight: Spec, bias: Spec | None) -> str:
    if input.ndim == 2 and weight.ndim == 2:
        return "MmBackward0" if bias is None else "AddmmBackward0"
    return matmul_node(input, weight) if bias is None or weight.ndim == 1 else "ViewBackward0"


@op(
    family="linalg",
    name="nn.functional.linear",
    meta=_linear_meta,
    row_major=True,
    node=_linear_node,
    save={"input": ("weight",), "weight": ("input",)},
    samples=[
        S(T(2, 3), T(2, 3), T(2)),
        S(T(2, 3), T(2, 3)),
        S(T(3), T(2, 3), T(2)),
        S(T(2, 2, 3), T(2, 3), T(2)),
        S(T(2, 3), T(3)),
        S(T(0, 3), T(2, 3), T(2)),
        S(T(2, 0), T(2, 0), T(2)),
        S(C(2, 2), C(3, 2), C(3)),
        S(I(2, 3), I(2, 3), I(2)),
        S(T(2, 3), T(2, 3), T(2, 2)),
    ],
)
def linear(k: K, input: Array, weight: Array, bias: Array | None = None) -> Array:
    """input @ weight.T + bias. Shapes: (..., in), (out, in), (out) give (..., out); all of one dtype."""
    if weight.ndim == 1:
        return multiply(k, input, weight)
    if bias is not None and bias.ndim == 1 and input.ndim > 1 and input.size and input.flags.c_contiguous:
        rows, turned = input.reshape(-1, input.shape[-1]), weight.T
        if slow_in_blas(k, rows, turned) and is_wide(len(rows), len(turned), turned.shape[1]):
            made = k.xp.empty((rows.shape[0], turned.shape[1]), rows.dtype)
            k.xp.add(turned_product(rows, turned), bias, out=made)  # turned back on the way
            return made.reshape(*input.shape[:-1], turned.shape[1])
    made = multiply(k, input, weight.T)
    if bias is None or not made.size:
        return made
    return k.xp.add(made, bias.reshape(bias.shape[max(bias.ndim - made.ndim, 0) :]), out=made)


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


@composite(
    family="linalg",
    name="nn.functional.bilinear",
    alias=("bilinear",),
    samples=[S(T(2, 3), T(2, 2), T(2, 3, 2), T(2)), S(T(2, 3), T(2, 2), T(2, 3, 2)), S(T(3), T(2), T(4, 3, 2), T(4))],
)
def bilinear(F: Any, input1: Array, input2: Array, weight: Array, bias: Array | None = None) -> Array:
    """input1 @ weight[o] @ input2 + bias[o] for each output o. Shapes: (..., n), (..., m), (out, n, m), (out)."""
    a, b, w = F.shape(input1), F.shape(input2), F.shape(weight)
    words = ""
    if len(a) != len(b):
        words = f"input dimensions do not match: got {len(a)} and {len(b)}"
    elif a[:-1] != b[:-1]:
        at = next(i for i, (n, m) in enumerate(zip(a, b, strict=True)) if n != m)
        words = f"input batch dimensions do not match at dim {at}: got {a[at]} and {b[at]}"
    elif len(w) < 3 or not a:  # PyTorch asks for a size that is not there
        wrap_dim(-1, len(a), scalar_ok=False)
        wrap_dim(2, len(w), scalar_ok=False)
    elif a[-1] != w[1]:
        words = f"input1 size does not match weight size: got {a[-1]} but expected {w[1]}"
    elif b[-1] != w[2]:
        words = f"input2 size does not match weight size: got {b[-1]} but expected {w[2]}"
    elif bias is not None and F.shape(bias) != w[:1]:
        got = F.shape(bias)[0] if F.shape(bias) else "no dimensions"
        words = f"bias size does not match weight size: got {got} but expected {w[0]}"
    if words:
        raise ShapeMismatch(f"bilinear(): {words}")
    found = [F.dtype(x) for x in (input1, input2, weight, bias) if x is not None]
    if bias is not None and len(set(found[:3])) == 1 and found[3] is not found[0]:
        given = zip(("input1", "input2", "weight", "bias"), found, strict=True)
        shown = ", ".join(f"{name}: {C_NAMES[d.name]}" for name, d in given)
        raise DtypeMismatch(f"All tensors must have the same dtype, got {shown}", param="bias")
    rows = prod(a[:-1])
    x = F.reshape(input1, (rows, a[-1]))
    y = F.reshape(input2, (rows, b[-1]))
    made = F.einsum("bi,oij,bj->bo", [x, weight, y])
    if bias is not None:
        made = F.add(made, bias)
    return F.reshape(made, (*a[:-1], w[0]))
