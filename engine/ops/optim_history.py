"""Optimizers that look back over whole steps: averaged SGD and limited-memory BFGS, as steps over explicit state."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, State, op, special
from engine.dtypes import float32
from engine.errors import DtypeMismatch, Hint, Invalid, MissingParameter, ShapeMismatch
from engine.op import Spec
from engine.ops.optim import EXAMPLE, FAMILY, PARAMS, check_pairs, check_rates, check_state, each, make_state
from engine.samples import S, T
from engine.tensor import Tensor, fresh

# ---------------------------------------------------------------- averaged SGD

_AVERAGED = ("step", "eta", "mu", "ax")


@special(
    family=FAMILY, name="optim.asgd_state", returns="object of lists of Tensors", example={"params": EXAMPLE["params"]}
)
def asgd_state(ctx: Any, params: list[Array], lr: float = 0.01) -> dict[str, list[Tensor]]:
    """The state of `optim.asgd_`: `step`, `eta` (which begins with `lr`), `mu`, and the averages `ax`."""
    check_rates("optim.asgd_state", lr=lr)
    return make_state(ctx, params, _AVERAGED, eta=lr, mu=1.0)


def _asgd_meta(
    k: K,
    params: Any,
    grads: Any,
    state: Any,
    lr: float,
    lambd: float,
    alpha: float,
    t0: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    check_pairs(params, grads, "optim.asgd_")
    check_rates("optim.asgd_", lr=lr, weight_decay=weight_decay)
    check_state(params, state, _AVERAGED, "optim.asgd_", "optim.asgd_state")


def _one(value: Any) -> list[Any]:
    return [{"data": value, "dtype": "float32"}]


@op(
    family=FAMILY,
    name="optim.asgd_",
    meta=_asgd_meta,
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[
        S(
            PARAMS["params"],
            PARAMS["grads"],
            {
                "step": [T(values=0.0, dtype="float32"), T(values=0.0, dtype="float32")],
                "eta": [T(values=0.01, dtype="float32"), T(values=0.01, dtype="float32")],
                "mu": [T(values=1.0, dtype="float32"), T(values=0.5, dtype="float32")],
                "ax": [T(3, 2, grad=False), T(2, grad=False)],
            },
        )
    ],
    example={**EXAMPLE, "state": {"step": _one(0), "eta": _one(0.01), "mu": _one(1), "ax": _one([0, 0])}},
)
def asgd_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.01,
    lambd: float = 0.0001,
    alpha: float = 0.75,
    t0: float = 1000000.0,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of averaged stochastic gradient descent (Polyak and Juditsky 1992), as torch.optim.ASGD.

    params shrink by lambd * eta and move by eta against the gradient; `ax` follows them until step t0 and is their
    average from then on. eta = lr / (1 + lambd * lr * step)^alpha.
    """
    xp = k.xp
    for p, g, counter, eta, mu, average in each(k, params, grads, state, _AVERAGED, maximize):
        counter += 1
        step, rate = float(counter), float(eta)
        if weight_decay:
            g = g + p * weight_decay
        xp.multiply(p, 1 - lambd * rate, out=p)
        xp.subtract(p, g * rate, out=p)
        if float(mu) == 1:
            average[...] = p
        else:
            xp.add(average, (p - average) * float(mu), out=average)
        with np.errstate(all="ignore"):
            eta[...] = float(lr / np.float64(1 + lambd * lr * step) ** alpha)
        mu[...] = 1 / max(1.0, step - t0)


# ---------------------------------------------------------------- L-BFGS

_LBFGS = ("step", "count", "h_diag", "t", "d", "prev_flat_grad", "old_dirs", "old_stps")


def _length(params: Any) -> int:
    return sum(p.numel for p in params)


def _lbfgs_shapes(n: int, history: int) -> dict[str, tuple[int, ...]]:
    return {
        **dict.fromkeys(("step", "count", "h_diag", "t"), ()),
        **dict.fromkeys(("d", "prev_flat_grad"), (n,)),
        **dict.fromkeys(("old_dirs", "old_stps"), (history, n)),
    }


def _check_alike(params: Any) -> None:
    if not params:
        raise Invalid("optimizer got an empty parameter list", param="params")
    first = params[0].dtype
    for i, p in enumerate(params):
        if p.dtype is not first or first.is_complex:
            raise DtypeMismatch(
                f"optim.lbfgs_ joins all parameters to one vector of real numbers: parameter {i} is {p.dtype.name}, "
                f"the first {first.name}",
                param="params",
            )


@special(
    family=FAMILY,
    name="optim.lbfgs_state",
    returns="object of lists of Tensors",
    example={"params": EXAMPLE["params"], "history_size": 10},
)
def lbfgs_state(ctx: Any, params: list[Array], history_size: int = 100) -> dict[str, list[Tensor]]:
    """The state of `optim.lbfgs_`, lists of one tensor each, since all parameters are one vector of n elements.

    `step`, `count` (how many rows of the history are in use), `h_diag`, `t`, the last direction `d` and gradient
    `prev_flat_grad` (n), the changes of the gradient `old_dirs` and of the parameters `old_stps` (history_size, n).
    """
    if history_size < 1:
        raise Invalid(f"history_size must be at least 1, got {history_size}", param="history_size")
    _check_alike([p.spec for p in params])
    backend, d = params[0].backend, params[0].dtype
    made = {}
    for field, shape in _lbfgs_shapes(sum(p.spec.numel for p in params), history_size).items():
        spec = Spec(shape, float32 if field in ("step", "count") else d)
        ctx.admit(spec.nbytes)
        array = backend.xp.full(shape, 1.0 if field == "h_diag" else 0.0, dtype=spec.dtype.compute.np)
        made[field] = [fresh(backend.cast(array, spec.dtype.compute, spec.dtype), spec, backend, ctx.ledger)]
    return made


def _lbfgs_meta(
    k: K, params: Any, grads: Any, state: Any, lr: float, tolerance_grad: float, tolerance_change: float
) -> None:
    check_pairs(params, grads, "optim.lbfgs_")
    check_rates("optim.lbfgs_", lr=lr)
    _check_alike(params)
    if state is None:
        raise MissingParameter(
            "optim.lbfgs_ needs a state: make it once with optim.lbfgs_state",
            param="state",
            hint=Hint("make-state", op="optim.lbfgs_state"),
        )
    n = _length(params)
    rows = state["old_dirs"][0].shape[0] if state.get("old_dirs") and state["old_dirs"][0].ndim else 0
    for field, shape in _lbfgs_shapes(n, rows).items():
        found = state.get(field)
        if found is None or len(found) != 1 or found[0].shape != shape or (len(shape) == 2 and not rows):
            raise Invalid(
                f"the state's {field!r} must hold one tensor of shape {list(shape)}",
                code="bad-state",
                param="state",
                hint=Hint("make-state", op="optim.lbfgs_state"),
            )
    for field in state:
        if field not in _LBFGS:
            raise ShapeMismatch(f"the state has no field {field!r} here: {', '.join(_LBFGS)}", param="state")


def _joined(k: K, params: Any, grads: Any) -> Any:
    """All gradients as one vector; zeros where there is none."""
    xp = k.xp
    return xp.concatenate(
        [xp.zeros(p.size, p.dtype) if g is None else g.reshape(-1) for p, g in zip(params, grads, strict=True)]
    )


def _direction(g: Any, dirs: Any, steps: Any, count: int, h_diag: float) -> Any:
    """-H g by the two-loop recursion (Nocedal 1980), from the last `count` changes of gradient and parameters."""
    q = -g
    factors = [0.0] * count
    inverse = [1 / float(dirs[i] @ steps[i]) for i in range(count)]
    for i in range(count - 1, -1, -1):
        factors[i] = float(steps[i] @ q) * inverse[i]
        q -= dirs[i] * factors[i]
    q *= h_diag
    for i in range(count):
        q += steps[i] * (factors[i] - float(dirs[i] @ q) * inverse[i])
    return q


_N = 8


@op(
    family=FAMILY,
    name="optim.lbfgs_",
    meta=_lbfgs_meta,
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[
        S(
            PARAMS["params"],
            PARAMS["grads"],
            {
                **{f: [T(values=0.0, dtype="float32")] for f in ("step", "count")},
                **{f: [T(values=v, grad=False)] for f, v in (("h_diag", 1.0), ("t", 0.0))},
                "d": [T(_N, grad=False)],
                "prev_flat_grad": [T(_N, grad=False)],
                "old_dirs": [T(3, _N, grad=False)],
                "old_stps": [T(3, _N, grad=False)],
            },
        )
    ],
    example={
        **EXAMPLE,
        "state": {
            **{f: _one(v) for f, v in (("step", 0), ("count", 0), ("h_diag", 1), ("t", 0))},
            **{f: _one([0, 0]) for f in ("d", "prev_flat_grad")},
            **{f: _one([[0, 0], [0, 0]]) for f in ("old_dirs", "old_stps")},
        },
    },
)
def lbfgs_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 1.0,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
) -> None:
    """One iteration of limited-memory BFGS (Nocedal 1980), as torch.optim.LBFGS with max_iter=1 and no line search.

    The step goes along -H g, where H is made of the last changes of gradient and parameters that the state holds; the
    first one is min(1, 1 / |g|_1) * lr long, later ones lr. Nothing moves where no gradient is larger than
    `tolerance_grad`, or where the slope along the direction is above -`tolerance_change`.
    """
    xp = k.xp
    g = _joined(k, params, grads)
    if not g.size or float(abs(g).max()) <= tolerance_grad:
        return
    one = {field: state[field][0] for field in _LBFGS}
    dirs, steps = one["old_dirs"], one["old_stps"]
    one["step"] += 1
    count = int(one["count"])
    if float(one["step"]) == 1:
        count, direction = 0, -g
        one["h_diag"][...] = 1
        total = float(abs(g).sum())
        length = (min(1.0, 1.0 / total) if total else 1.0) * lr
    else:
        change = g - one["prev_flat_grad"]
        step = one["d"] * one["t"]
        curvature = float(change @ step)
        if curvature > 1e-10:
            if count == dirs.shape[0]:
                dirs[:-1], steps[:-1] = dirs[1:].copy(), steps[1:].copy()
                count -= 1
            dirs[count], steps[count] = change, step
            count += 1
            one["h_diag"][...] = curvature / float(change @ change)
        direction = _direction(g, dirs, steps, count, float(one["h_diag"]))
        length = lr
    one["count"][...] = count
    one["d"][...], one["prev_flat_grad"][...] = direction, g
    one["t"][...] = length
    if float(g @ direction) > -tolerance_change:
        return
    at = 0
    for p in params:
        xp.add(p, direction[at : at + p.size].reshape(p.shape) * length, out=p)
        at += p.size
