"""torch.autograd.gradcheck and gradgradcheck: the gradients of a program against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.autograd import run_backward
from engine.backend import CPU
from engine.context import Context, grad_mode
from engine.declare import Array, Function, special
from engine.dtypes import DType, complex64, complex128, float32, float64, to_real
from engine.errors import Call, EngineError, GradcheckFailed, Hint, Invalid, NoGradient, Param
from engine.op import Spec
from engine.ops.functional import Callee, Calls, as_list, cut, grads
from engine.printing import tensor_text
from engine.record import REC
from engine.shapes import has_internal_overlap
from engine.tape import require_grad
from engine.tensor import Tensor, fresh

Host = Any  # a NumPy array

_POINT = {"data": [1.5, 2.5], "dtype": "float64", "requires_grad": True}
_CUBES = {
    "inputs": ["x"],
    "steps": [{"op": "pow", "args": {"input": "x", "exponent": 3}, "out": "y"}],
    "return": "y",
}


# ---------------------------------------------------------------- host values


def _host(t: Tensor) -> Host:
    host = t.backend.to_host(t.array)
    return CPU.widen(host, t.dtype) if t.dtype.reduced else host


def _tensor(host: Host, like: Tensor) -> Tensor:
    """A leaf with host values, in another's dtype and on its device."""
    d = like.dtype
    source = float64 if host.dtype.kind == "f" else None
    values = CPU.cast(np.ascontiguousarray(host), source or d, d) if d.reduced else host.astype(d.np)
    return fresh(like.backend.from_host(np.array(values)), Spec(host.shape, d), like.backend, like.storage.ledger)


def _shown(host: Host, d: DType) -> str:
    """A Jacobian as PyTorch prints it."""
    shown = d.compute
    if host.dtype.kind == "c" and not shown.is_complex:
        shown = complex64 if shown is float32 else complex128
    return tensor_text(np.ascontiguousarray(host.astype(shown.np)), shown.name)


def _differentiable(outputs: Sequence[Any]) -> list[Tensor]:
    return [o for o in outputs if type(o) is Tensor and o.requires_grad]


def _floating(outputs: Sequence[Any]) -> list[Tensor]:
    return [o for o in outputs if type(o) is Tensor and (o.dtype.is_floating or o.dtype.is_complex)]


# ---------------------------------------------------------------- Jacobians


def _check_same(a: Tensor, b: Tensor, eps: float) -> None:
    said: tuple[str, ...] = ()
    if a.shape != b.shape:
        said = ("shape", f"torch.Size({list(a.shape)})", f"torch.Size({list(b.shape)})")
    elif a.dtype is not b.dtype:
        said = ("dtype", f"torch.{a.dtype.name}", f"torch.{b.dtype.name}")
    if said:
        what, one, other = said
        raise GradcheckFailed(
            f"Expected `func` to return outputs with the same {what} when inputs are perturbed by {eps}, but got: "
            f"{what}s {one} and {other}.",
            param="func",
        )


def _numerical(func: Callee, inputs: Sequence[Tensor], eps: float, part: str) -> Calls:
    """By output and differentiable input, the matrix (inputs x outputs) of central differences.

    Of a complex input element it is (d/dx + i d/dy), which is what a gradient is by PyTorch's convention. `part` says
    which part of complex outputs is looked at.
    """
    by_input: list[list[Host]] = []
    for at, x in enumerate(inputs):
        if not x.requires_grad:
            continue
        columns: list[list[Host]] = []
        flat = np.array(_host(x)).reshape(-1)
        for i in range(flat.size):
            one: list[Host] = []
            for step in (eps, 1j * eps) if x.dtype.is_complex else (eps,):
                ends = []
                for way in (-step, step):
                    moved = flat.astype(np.complex128 if x.dtype.is_complex else np.float64)
                    moved[i] += way
                    ends.append((yield from _values(func, inputs, at, moved.reshape(x.shape), part)))
                for j, ((a, before), (b, after)) in enumerate(zip(*ends, strict=True)):
                    _check_same(before, after, eps)
                    slope = (b - a) / (2 * eps)
                    if step.imag == 0:
                        one.append(slope)
                    else:
                        one[j] = one[j] + 1j * slope
                yield
            columns.append(one)
        outs = len(columns[0]) if columns else 0
        by_input.append([np.stack([c[j] for c in columns]) for j in range(outs)])
    return by_input


def _values(func: Callee, inputs: Sequence[Tensor], at: int, moved: Host, part: str) -> Calls:
    """(values, tensor) of each differentiable output, with the input `at` moved."""
    given = [_still(x) for x in inputs]
    given[at] = _tensor(moved, inputs[at])
    if inputs[at].requires_grad:
        require_grad(given[at])
    every = as_list((yield from func(given)))[1]
    outputs = _differentiable(every) or _floating(every)
    return [(_part(_host(o).reshape(-1), part), o) for o in outputs]


def _still(x: Tensor) -> Tensor:
    """The same values in memory of their own, so that a function that changes its input changes no other call's."""
    made = REC.clone(cut(x))
    if x.requires_grad:
        require_grad(made)
    return made  # type: ignore[no-any-return]


def _part(values: Host, part: str) -> Host:
    values = values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
    return values.imag if part == "imaginary" and values.dtype.kind == "c" else values.real


def _analytical(output: Tensor, inputs: Sequence[Tensor], part: str) -> Calls:
    """For each input that requires grad the matrix (inputs x outputs) of what backward gives, by unit cotangents."""
    wanted = [x for x in inputs if x.requires_grad]
    found = [np.zeros((x.numel, output.numel), np.complex128 if x.dtype.is_complex else np.float64) for x in wanted]
    types = True
    for j in range(output.numel):
        unit = np.zeros(output.numel, np.complex128 if output.dtype.is_complex else np.float64)
        unit[j] = 1j if part == "imaginary" and output.dtype.is_complex else 1
        seed = _tensor(unit.reshape(output.shape), output)
        row = run_backward([output], [seed], inputs=wanted, retain_graph=True, accumulate=False)
        for at, (g, x) in enumerate(zip(row, wanted, strict=True)):
            if g is None:
                continue
            if g.shape != x.shape:
                raise GradcheckFailed("Analytical gradient has incorrect size", param="func")
            types = types and g.dtype is x.dtype
            found[at][:, j] = _host(g).reshape(-1)
        yield
    return found, types


def _close(a: Host, n: Host, rtol: float, atol: float) -> bool:
    return bool(np.allclose(a, n, rtol=rtol, atol=atol))


# ---------------------------------------------------------------- the check


def _check_inputs(inputs: Sequence[Tensor]) -> None:
    for i, x in enumerate(inputs):
        if x.requires_grad and has_internal_overlap(x.shape, x.strides):
            raise Invalid(
                f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs that are "
                "non-overlapping to be able to compute the numerical gradients correctly. You should call "
                ".contiguous on the input before passing it to gradcheck.",
                param="inputs",
                hint=Hint("contiguous", Call("contiguous", {"input": Param("inputs")})),
            )
    if not any(x.requires_grad for x in inputs):
        raise NoGradient(
            "gradcheck expects at least one input tensor to require gradient, but none of them have "
            "requires_grad=True.",
            param="inputs",
            hint=Hint("requires-grad"),
        )


def _precise(inputs: Sequence[Tensor]) -> bool:
    return all(to_real(x.dtype) is float64 for x in inputs if x.requires_grad)


def _check(
    func: Callee,
    inputs: Sequence[Tensor],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    check_undefined_grad: bool,
    check_grad_dtypes: bool,
) -> Calls:
    with grad_mode(True):
        _check_inputs(inputs)
        every = as_list((yield from func(inputs)))[1]
        outputs = _differentiable(every)
        complex_ = any(type(o) is Tensor and o.dtype.is_complex for o in every)
        for part in ("imaginary", "real") if complex_ else ("real",):
            yield from _check_part(func, inputs, outputs, eps, atol, rtol, nondet_tol, check_grad_dtypes, part)
        yield from _check_zero(func, inputs, outputs, check_undefined_grad)
    return True


def _check_part(
    func: Callee,
    inputs: Sequence[Tensor],
    outputs: list[Tensor],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    check_grad_dtypes: bool,
    part: str,
) -> Calls:
    wanted = [x for x in inputs if x.requires_grad]
    numerical = yield from _numerical(func, inputs, eps, part)
    if not outputs and any(np.any(n != 0) for row in numerical for n in row):
        raise GradcheckFailed("Numerical gradient for function expected to be zero", param="func")
    for i, output in enumerate(outputs):
        if part == "imaginary" and not output.dtype.is_complex:
            continue
        analytical, types = yield from _analytical(output, inputs, part)
        again, _ = yield from _analytical(output, inputs, part)
        if not types and check_grad_dtypes:
            raise GradcheckFailed("Gradient has dtype mismatch", param="func")
        for a, b in zip(analytical, again, strict=True):
            if a.size and np.abs(a - b).max() > nondet_tol:
                raise GradcheckFailed(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times "
                    "gives different values, although analytical gradient matches numerical gradient.The tolerance "
                    f"for nondeterminism was {nondet_tol}.",
                    param="func",
                )
        for j, (a, found) in enumerate(zip(analytical, numerical, strict=True)):
            n = found[i] if found else np.zeros_like(a)
            if not _close(a, n, rtol, atol):
                prefix = ""
                if output.dtype.is_complex:
                    prefix = f"While considering the {part} part of complex outputs only, "
                raise GradcheckFailed(
                    f"{prefix}Jacobian mismatch for output {i} with respect to input {j},\n"
                    f"numerical:{_shown(n, output.dtype)}\nanalytical:{_shown(a, wanted[j].dtype)}\n",
                    param="func",
                    hint=None if _precise(inputs) else Hint("double-precision"),
                )


def _check_zero(func: Callee, inputs: Sequence[Tensor], outputs: list[Tensor], undefined: bool) -> Calls:
    """Cotangents of zeros, and where asked for missing ones, must give gradients of zeros."""
    wanted = [x for x in inputs if x.requires_grad]
    if not outputs:
        return
    row = grads(outputs, wanted, [REC.zeros_like(o) for o in outputs], retain_graph=True)
    for g, x in zip(row, wanted, strict=True):
        if g is None:
            continue
        if np.any(_host(g) != 0):  # NaN too
            raise GradcheckFailed("backward not multiplied by grad_output", param="func")
        if g.dtype is not x.dtype:
            raise GradcheckFailed("grad is incorrect type", param="func")
        if g.shape != x.shape:
            raise GradcheckFailed("grad is incorrect size", param="func")
    yield
    if not undefined or len(outputs) < 2:
        return
    for left_out in range(len(outputs)):
        rest = [o for i, o in enumerate(outputs) if i != left_out]
        try:
            row = grads(rest, wanted, [REC.zeros_like(o) for o in rest], retain_graph=True)
        except EngineError as e:
            raise GradcheckFailed(
                'Expected backward function to handle undefined output grads. Please look at "Notes about undefined '
                'output gradients" in "tools/autograd/derivatives.yaml"',
                param="func",
            ) from e
        if any(g is not None and np.any(_host(g) != 0) for g in row):
            raise GradcheckFailed(
                "Expected all input grads to be undefined or zero when all output grads are undefined or zero. Please "
                'look at "Notes about undefined output gradients" in "tools/autograd/derivatives.yaml"',
                param="func",
            )
        yield


def _answered(check: Calls, raise_exception: bool) -> Calls:
    try:
        return (yield from check)
    except GradcheckFailed:
        if raise_exception:
            raise
        return False


@special(
    family="autograd",
    name="autograd.gradcheck",
    returns="value",
    example={"func": _CUBES, "inputs": [_POINT]},
)
def gradcheck(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
) -> Calls:
    """Whether the gradients of a function agree with central differences, at inputs that require grad.

    Where they do not it is an error that shows both Jacobians, or the answer false if `raise_exception` is false. The
    tolerances are meant for float64; each element of the inputs costs two calls of the function, four if complex.
    """
    given = as_list(inputs)[1]
    check = _check(func, given, eps, atol, rtol, nondet_tol, check_undefined_grad, check_grad_dtypes)
    return (yield from _answered(check, raise_exception))


@special(
    family="autograd",
    name="autograd.gradgradcheck",
    returns="value",
    random=True,
    example={"func": _CUBES, "inputs": [_POINT]},
)
def gradgradcheck(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    grad_outputs: Array | list[Array | None] | None = None,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
) -> Calls:
    """`gradcheck` of the gradients of a function: whether its second derivatives agree with central differences.

    `grad_outputs` are the cotangents, random in [-1, 1) if left out.
    """
    given = as_list(inputs)[1]
    if grad_outputs is None:
        with grad_mode(True):
            outputs = _differentiable(as_list((yield from func(given)))[1])
        seeds = [_random(o) for o in outputs]
    else:
        seeds = as_list(grad_outputs)[1]

    def first(at: Sequence[Tensor]) -> Calls:
        points, cotangents = at[: len(given)], at[len(given) :]
        outputs = _differentiable(as_list((yield from func(points)))[1])
        wanted = [x for x in points if x.requires_grad]
        found = run_backward(outputs, cotangents, inputs=wanted, create_graph=True, accumulate=False)
        return [g for g in found if g is not None]

    check = _check(first, [*given, *seeds], eps, atol, rtol, nondet_tol, check_undefined_grad, check_grad_dtypes)
    return (yield from _answered(check, raise_exception))


def _random(like: Tensor) -> Tensor:
    """A cotangent from the session's generator."""
    made: Callable[..., Any] = REC.rand_like
    x = REC.sub(REC.mul(made(like), 2.0), 1.0)
    require_grad(x)
    return x  # type: ignore[no-any-return]
