"""Optimizers that treat matrices as matrices: Adafactor, Muon. Steps over explicit state, as in optim.py."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from engine.carriers import K
from engine.declare import Array, State, op, special
from engine.dtypes import bfloat16, float32, float64
from engine.errors import Invalid
from engine.op import Spec
from engine.ops.optim import COUNTERS, EXAMPLE, FAMILY, check_pairs, check_state
from engine.samples import S, T
from engine.tensor import Tensor, fresh


def _require(holds: bool, words: str, value: Any, param: str) -> None:
    if not holds:
        raise Invalid(f"{words} but is: {value}", code="bad-rate", param=param)


def _refuse_complex(params: Sequence[Any], name: str) -> None:
    if any(p.dtype.is_complex for p in params):
        raise Invalid(f"{name} does not support complex parameters", code="dtype-unsupported", param="params")


def _lerp(start: Any, end: Any, weight: float) -> Any:
    """From `start` to `end`, reckoned from the nearer one, as PyTorch's lerp."""
    return start + (end - start) * weight if weight < 0.5 else end - (end - start) * (1 - weight)


# ---------------------------------------------------------------- Adafactor

_EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_FACTORED = ("step", "row_var", "col_var", "variance")


def _part(field: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a field: a column and a row for what has two dimensions or more, where the variance is empty."""
    if field in COUNTERS:
        return ()
    if (field == "variance") == (len(shape) > 1):
        return (0,)
    if field == "variance":
        return tuple(shape)
    return (*shape[:-1], 1) if field == "row_var" else (*shape[:-2], 1, shape[-1])


@special(
    family=FAMILY,
    name="optim.adafactor_state",
    returns="object of lists of Tensors",
    example={"params": EXAMPLE["params"]},
)
def adafactor_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.adafactor_`: `step`, and `row_var` and `col_var` of matrices, `variance` of vectors.

    Those that a parameter has no use for are empty.
    """
    _refuse_complex(params, "Adafactor")
    out: dict[str, list[Tensor]] = {field: [] for field in _FACTORED}
    for p in params:
        for field, rows in out.items():
            spec = Spec(_part(field, p.shape), float32 if field in COUNTERS else p.dtype)
            ctx.admit(spec.nbytes)
            array = p.backend.cast(p.backend.xp.zeros(spec.shape, dtype=float32.np), float32, spec.dtype)
            rows.append(fresh(array, spec, p.backend, ctx.ledger))
    return out


def _adafactor_meta(
    k: K,
    params: Any,
    grads: Any,
    state: Any,
    lr: float = 0.01,
    beta2_decay: float = -0.8,
    eps: Any = (None, 0.001),
    d: float = 1.0,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    check_pairs(params, grads, "optim.adafactor_")
    _require(lr >= 0, "Learning rate should be >= 0", lr, "lr")
    _require(beta2_decay <= 0, "beta2_decay should be <= 0", beta2_decay, "beta2_decay")
    if len(eps) != 2 or eps[1] is None:
        raise Invalid("eps are two values: null or a number, and a number", param="eps")
    _require(eps[0] is None or eps[0] >= 0, "epsilon1 should be >= 0", eps[0], "eps")
    _require(eps[1] >= 0, "epsilon2 should be >= 0", eps[1], "eps")
    _require(d >= 1, "Clipping threshold d should be >= 1", d, "d")
    _require(weight_decay >= 0, "weight_decay should be >= 0", weight_decay, "weight_decay")
    _refuse_complex(params, "Adafactor")
    first = next((p.dtype for p, g in zip(params, grads, strict=True) if g is not None), None)
    if eps[0] is None and first is not None and first.reduced:  # kernels see float32, whose epsilon is another one
        own = _EPSILONS[first.name]
        raise Invalid(
            f"Adafactor computes {first.name} in float32 here and does not guess eps[0]: PyTorch's is {own}, "
            f"so give eps=[{own}, {eps[1]}]",
            param="eps",
        )
    check_state(params, state, _FACTORED, "optim.adafactor_", "optim.adafactor_state", shape_of=_part)


@op(
    family=FAMILY,
    name="optim.adafactor_",
    meta=_adafactor_meta,
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[
        S(
            [T(3, 2), T(2)],
            [T(3, 2, grad=False), T(2, grad=False)],
            {
                "step": [T(values=0.0, dtype="float32"), T(values=0.0, dtype="float32")],
                "row_var": [T(3, 1, low=0.1, grad=False), T(0, grad=False)],
                "col_var": [T(1, 2, low=0.1, grad=False), T(0, grad=False)],
                "variance": [T(0, grad=False), T(2, low=0.1, grad=False)],
            },
        )
    ],
    example={
        **EXAMPLE,
        "state": {
            "step": [{"data": 0, "dtype": "float32"}],
            "row_var": [{"data": [], "dtype": "float32"}],
            "col_var": [{"data": [], "dtype": "float32"}],
            "variance": [{"data": [0, 0], "dtype": "float32"}],
        },
    },
)
def adafactor_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.01,
    beta2_decay: float = -0.8,
    eps: list[float | None] = (None, 0.001),  # type: ignore[assignment]
    d: float = 1.0,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of Adafactor (Shazeer and Stern 2018), as torch.optim.Adafactor.

    Of a matrix's squared gradients the means of rows and columns are kept. The
    step is as long as the root mean square of the parameter, or eps[1], times min(lr, 1 / sqrt(step)); `d` limits
    that of the update. eps[0] is the dtype's epsilon where it is null; it must be given for
    float16 and bfloat16.
    """
    xp = k.xp
    least = eps[0]
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        if g is None:
            continue
        if least is None:  # that of the first parameter counts for all, as in PyTorch
            least = float(xp.finfo(p.dtype).eps)
        counter, row, column, variance = (state[field][i] for field in _FACTORED)
        counter += 1
        if not p.size:
            continue
        step = float(counter)
        weight = step**beta2_decay
        rate = max(eps[1] or 0.0, _length(xp, p) / sqrt(p.size)) * min(lr, 1 / sqrt(step))
        if maximize:
            g = -g
        if weight_decay:
            xp.multiply(p, 1 - lr * weight_decay, out=p)
        squares = g * g
        if p.ndim > 1:
            row[...] = _lerp(row, squares.mean(axis=-1, keepdims=True), weight)
            column[...] = _lerp(column, squares.mean(axis=-2, keepdims=True), weight)
            estimate = row * column / xp.maximum(row.mean(axis=-2, keepdims=True), least)
        else:
            variance[...] = _lerp(variance, squares, weight)
            estimate = variance
        update = g / xp.sqrt(xp.maximum(estimate, least * least))
        xp.subtract(p, update * (rate / max(1.0, _length(xp, update) / (sqrt(p.size) * d))), out=p)


def _length(xp: Any, x: Any) -> float:
    return float(xp.sqrt((x * x).sum()))


# ---------------------------------------------------------------- Muon


def _check_matrices(params: Sequence[Any]) -> None:
    for p in params:
        if len(p.shape) != 2:
            raise Invalid(
                f"Muon only supports 2D parameters whereas we found a parameter with size: torch.Size({list(p.shape)})",
                code="bad-shape",
                param="params",
            )
    _refuse_complex(params, "Muon")


@special(
    family=FAMILY, name="optim.muon_state", returns="object of lists of Tensors", example={"params": [[[0.5, 1.5]]]}
)
def muon_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.muon_`: `momentum_buffer`."""
    _check_matrices(params)
    rows = []
    for p in params:
        ctx.admit(p.nbytes)
        array = p.backend.cast(p.backend.xp.zeros(p.shape, dtype=float32.np), float32, p.dtype)
        rows.append(fresh(array, p.spec, p.backend, ctx.ledger))
    return {"momentum_buffer": rows}


_RATES = {None: "original", "original": "original", "match_rms_adamw": "match_rms_adamw"}


def _muon_meta(
    k: K,
    params: Any,
    grads: Any,
    state: Any,
    lr: float = 0.001,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_coefficients: Any = (3.4445, -4.775, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> None:
    check_pairs(params, grads, "optim.muon_")
    _require(lr >= 0, "Learning rate should be >= 0", lr, "lr")
    _require(momentum >= 0, "momentum should be >= 0", momentum, "momentum")
    _require(weight_decay >= 0, "weight decay should be >= 0", weight_decay, "weight_decay")
    if adjust_lr_fn not in _RATES:
        raise Invalid(f"Adjust learning rate function {adjust_lr_fn} is not supported", param="adjust_lr_fn")
    _check_matrices(params)
    if ns_steps >= 100:
        raise Invalid("Number of steps must be less than 100 for computational efficiency", param="ns_steps")
    if len(ns_coefficients) != 3:
        raise Invalid("Coefficients must be a tuple of exactly 3 values", param="ns_coefficients")
    check_state(params, state, ("momentum_buffer",), "optim.muon_", "optim.muon_state")


@op(
    family=FAMILY,
    name="optim.muon_",
    meta=_muon_meta,
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[
        S(
            [T(3, 2), T(2, 2)],
            [T(3, 2, grad=False), T(2, 2, grad=False)],
            {"momentum_buffer": [T(3, 2, grad=False), T(2, 2, grad=False)]},
        )
    ],
    example={
        "params": [[[0.5, 1.5]]],
        "grads": [[[0.25, -0.25]]],
        "state": {"momentum_buffer": [{"data": [[0, 0]], "dtype": "float32"}]},
    },
)
def muon_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.001,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_coefficients: list[float] = (3.4445, -4.775, 2.0315),  # type: ignore[assignment]
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> None:
    """One step of Muon (Jordan 2024), as torch.optim.Muon, for matrices alone.

    The averaged gradient is made nearly orthogonal by `ns_steps` steps of Newton and Schulz, in bfloat16.
    `adjust_lr_fn` suits the rate to the sizes (A, B): "original", which is meant by null, by sqrt(max(1, A / B));
    "match_rms_adamw" by 0.2 sqrt(max(A, B)).
    """
    xp = k.xp
    for p, g, buffer in zip(params, grads, state["momentum_buffer"], strict=True):
        if g is None:
            continue
        buffer[...] = _lerp(buffer, g, 1 - momentum)
        if not p.size:
            continue
        rows, columns = p.shape
        update = _lerp(g, buffer, momentum) if nesterov else buffer
        update = _orthogonal(k, update, ns_coefficients, ns_steps, eps).astype(p.dtype)
        ratio = 0.2 * sqrt(max(rows, columns)) if _RATES[adjust_lr_fn] != "original" else sqrt(max(1, rows / columns))
        xp.multiply(p, 1 - lr * weight_decay, out=p)
        xp.subtract(p, update * (lr * ratio), out=p)


def _orthogonal(k: K, x: Any, coefficients: Any, steps: int, eps: float) -> Any:
    """x with its singular values near 1, rounded to bfloat16 after each operation as PyTorch's."""
    xp = k.xp

    def rounded(array: Any) -> Any:
        source = float64 if array.dtype.char == "d" else float32
        return k.backend.widen(k.backend.cast(array, source, bfloat16), bfloat16)

    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = rounded(x.T if tall else x)
    length = rounded(xp.sqrt((x * x).sum(keepdims=True)))
    x = rounded(x / xp.maximum(length, rounded(xp.full((1, 1), eps, dtype=x.dtype))))
    for _ in range(steps):
        gram = rounded(x @ x.T)
        gram = rounded(gram * b + (gram @ gram) * c)
        x = rounded(x * a + gram @ x)
    return x.T if tall else x
