"""Optimizers with a rate of its own for each element: RMSprop, Adagrad, Adadelta, Rprop, Adamax, NAdam, RAdam.

As in optim.py: steps over explicit state, with the formulas, defaults and refusals of torch.optim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.carriers import K
from engine.declare import Array, State, op, special
from engine.errors import Invalid
from engine.ops.optim import (
    COUNTERS,
    EXAMPLE,
    FAMILY,
    PARAMS,
    check_betas,
    check_pairs,
    check_rates,
    check_state,
    each,
    make_state,
    moved,
    square_mean,
)
from engine.samples import S, T
from engine.tensor import Tensor

Fields = Sequence[str]


def _meta(
    name: str,
    maker: str,
    options: Sequence[str],
    fields: Callable[[dict[str, Any]], Fields],
    rates: Sequence[str],
    unused: Fields = (),
    check: Callable[[dict[str, Any]], None] | None = None,
) -> Callable[..., None]:
    """The meta of a step: what it refuses. `options` names its parameters after the state."""

    def meta(k: K, params: Any, grads: Any, state: Any, *given: Any) -> None:
        named = dict(zip(options, given, strict=True))
        check_pairs(params, grads, name)
        check_rates(name, **{rate: named[rate] for rate in rates})
        if "betas" in named:
            check_betas(named["betas"])
        if check is not None:
            check(named)
        check_state(params, state, fields(named), name, maker, unused)

    return meta


def _sample(fields: Fields, **fills: float) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field in fields:
        if field in COUNTERS:
            made[field] = [T(values=fills.get(field, 0.0), dtype="float32") for _ in range(2)]
        else:
            made[field] = [T(3, 2, low=0.1, grad=False), T(2, low=0.1, grad=False)]
    return made


def _example(fields: Fields, **fills: float) -> dict[str, Any]:
    state = {}
    for field in fields:
        fill = fills.get(field, 0)
        fill = int(fill) if fill == int(fill) else fill  # a whole number stays what it is in any client
        state[field] = [{"data": fill if field in COUNTERS else [fill, fill], "dtype": "float32"}]
    return {**EXAMPLE, "state": state}


def _step(name: str, meta: Callable[..., None], fields: Fields, **fills: float) -> Callable[[Callable[..., None]], Any]:
    """Declares a step that changes parameters and state."""
    return op(
        family=FAMILY,
        name=name,
        meta=meta,
        vjp=None,
        mutates=("params", "state"),
        returns="value",
        samples=[S(PARAMS["params"], PARAMS["grads"], _sample(fields, **fills))],
        example=_example(fields, **fills),
    )


def _state(name: str) -> Callable[[Callable[..., Any]], Any]:
    return special(
        family=FAMILY, name=name, returns="object of lists of Tensors", example={"params": EXAMPLE["params"]}
    )


# ---------------------------------------------------------------- RMSprop


def _rmsprop_fields(named: dict[str, Any]) -> Fields:
    more = (("momentum_buffer", named["momentum"]), ("grad_avg", named["centered"]))
    return ("step", "square_avg", *(field for field, wanted in more if wanted))


@_state("optim.rmsprop_state")
def rmsprop_state(
    ctx: Any, params: list[Array], momentum: float = 0.0, centered: bool = False
) -> dict[str, list[Tensor]]:
    """The state of `optim.rmsprop_`: `step`, `square_avg` (and `momentum_buffer`, `grad_avg` where they are used)."""
    return make_state(ctx, params, _rmsprop_fields({"momentum": momentum, "centered": centered}))


@_step(
    "optim.rmsprop_",
    _meta(
        "optim.rmsprop_",
        "optim.rmsprop_state",
        ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize"),
        _rmsprop_fields,
        ("lr", "eps", "momentum", "weight_decay", "alpha"),
        ("momentum_buffer", "grad_avg"),
    ),
    ("step", "square_avg"),
)
def rmsprop_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.01,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> None:
    """One step of RMSprop (Hinton 2012), as torch.optim.RMSprop: gradients divided by the root of their mean square.

    `centered` takes the mean off before (Graves 2013).
    """
    xp = k.xp
    fields = _rmsprop_fields({"momentum": momentum, "centered": centered})
    for p, g, counter, square, *more in each(k, params, grads, state, fields, maximize):
        counter += 1
        if weight_decay:
            g = g + p * weight_decay
        square_mean(xp, square, g, alpha)
        if centered:
            mean = more[-1]
            moved(xp, mean, g, 1 - alpha)
            scale = xp.sqrt(square - mean * mean)
        else:
            scale = xp.sqrt(square)
        scale = scale + eps
        if momentum > 0:
            buffer = more[0]
            xp.multiply(buffer, momentum, out=buffer)
            xp.add(buffer, g / scale, out=buffer)
            xp.subtract(p, buffer * lr, out=p)
        else:
            xp.subtract(p, g / scale * lr, out=p)


# ---------------------------------------------------------------- Adagrad and Adadelta


@_state("optim.adagrad_state")
def adagrad_state(ctx: Any, params: list[Array], initial_accumulator_value: float = 0.0) -> dict[str, list[Tensor]]:
    """The state of `optim.adagrad_`: `step` and `sum`, which begins with `initial_accumulator_value`."""
    check_rates("optim.adagrad_state", initial_accumulator_value=initial_accumulator_value)
    return make_state(ctx, params, ("step", "sum"), sum=initial_accumulator_value)


@_step(
    "optim.adagrad_",
    _meta(
        "optim.adagrad_",
        "optim.adagrad_state",
        ("lr", "lr_decay", "weight_decay", "eps", "maximize"),
        lambda named: ("step", "sum"),
        ("lr", "lr_decay", "weight_decay", "eps"),
    ),
    ("step", "sum"),
)
def adagrad_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.01,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
) -> None:
    """One step of Adagrad (Duchi 2011), as torch.optim.Adagrad: gradients divided by the root of their squares' sum."""
    xp = k.xp
    for p, g, counter, total in each(k, params, grads, state, ("step", "sum"), maximize):
        counter += 1
        if weight_decay:
            g = g + p * weight_decay
        rate = lr / (1 + (float(counter) - 1) * lr_decay)
        xp.add(total, g * g, out=total)
        xp.subtract(p, g / (xp.sqrt(total) + eps) * rate, out=p)


@_state("optim.adadelta_state")
def adadelta_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.adadelta_`: `step`, `square_avg` and `acc_delta`."""
    return make_state(ctx, params, ("step", "square_avg", "acc_delta"))


def _check_rho(named: dict[str, Any]) -> None:
    if not 0 <= named["rho"] <= 1:
        raise Invalid(f"Invalid rho value: {named['rho']}", code="bad-rate", param="rho")


@_step(
    "optim.adadelta_",
    _meta(
        "optim.adadelta_",
        "optim.adadelta_state",
        ("lr", "rho", "eps", "weight_decay", "maximize"),
        lambda named: ("step", "square_avg", "acc_delta"),
        ("lr", "eps", "weight_decay"),
        check=_check_rho,
    ),
    ("step", "square_avg", "acc_delta"),
)
def adadelta_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of Adadelta (Zeiler 2012), as torch.optim.Adadelta: steps in the units of the parameters."""
    xp = k.xp
    for p, g, counter, square, delta in each(k, params, grads, state, ("step", "square_avg", "acc_delta"), maximize):
        counter += 1
        if weight_decay:
            g = g + p * weight_decay
        square_mean(xp, square, g, rho)
        change = xp.sqrt(delta + eps) / xp.sqrt(square + eps) * g
        square_mean(xp, delta, change, rho)
        xp.subtract(p, change * lr, out=p)


# ---------------------------------------------------------------- Rprop


@_state("optim.rprop_state")
def rprop_state(ctx: Any, params: list[Array], lr: float = 0.01) -> dict[str, list[Tensor]]:
    """The state of `optim.rprop_`: `step`, `prev` and `step_size`, which begins with `lr`."""
    check_rates("optim.rprop_state", lr=lr)
    return make_state(ctx, params, ("step", "prev", "step_size"), step_size=lr)


def _check_etas(named: dict[str, Any]) -> None:
    etas, sizes = named["etas"], named["step_sizes"]
    if len(etas) != 2 or not 0 < etas[0] < 1 < etas[1]:
        raise Invalid(f"Invalid eta values: {', '.join(map(str, etas))}", code="bad-rate", param="etas")
    if len(sizes) != 2:
        raise Invalid(f"step_sizes are two numbers, got {len(sizes)}", code="bad-rate", param="step_sizes")


@_step(
    "optim.rprop_",
    _meta(
        "optim.rprop_",
        "optim.rprop_state",
        ("etas", "step_sizes", "maximize"),
        lambda named: ("step", "prev", "step_size"),
        (),
        check=_check_etas,
    ),
    ("step", "prev", "step_size"),
    step_size=0.01,
)
def rprop_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    etas: list[float] = (0.5, 1.2),  # type: ignore[assignment]
    step_sizes: list[float] = (1e-6, 50),  # type: ignore[assignment]
    maximize: bool = False,
) -> None:
    """One step of resilient backpropagation (Riedmiller 1993), as torch.optim.Rprop: signs alone decide.

    Step sizes grow by etas[1] where the sign stays and shrink by etas[0] where it changes, within `step_sizes`. The
    rate that they begin with is a parameter of `optim.rprop_state`.
    """
    xp = k.xp
    shrink, grow = etas
    for p, g, counter, before, size in each(k, params, grads, state, ("step", "prev", "step_size"), maximize):
        counter += 1
        sign = g * before
        turned = sign < 0
        factor = xp.where(sign > 0, xp.asarray(grow, dtype=p.dtype), xp.asarray(1, dtype=p.dtype))
        factor = xp.where(turned, xp.asarray(shrink, dtype=p.dtype), factor)
        xp.multiply(size, factor, out=size)
        xp.clip(size, step_sizes[0], step_sizes[1], out=size)
        g = xp.where(turned, xp.zeros((), p.dtype), g)
        xp.subtract(p, xp.sign(g) * size, out=p)
        before[...] = g


# ---------------------------------------------------------------- Adamax, NAdam, RAdam


@_state("optim.adamax_state")
def adamax_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.adamax_`: `step`, `exp_avg` and `exp_inf`."""
    return make_state(ctx, params, ("step", "exp_avg", "exp_inf"))


@_step(
    "optim.adamax_",
    _meta(
        "optim.adamax_",
        "optim.adamax_state",
        ("lr", "betas", "eps", "weight_decay", "maximize"),
        lambda named: ("step", "exp_avg", "exp_inf"),
        ("lr", "eps", "weight_decay"),
    ),
    ("step", "exp_avg", "exp_inf"),
)
def adamax_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.002,
    betas: list[float] = (0.9, 0.999),  # type: ignore[assignment]
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of Adamax (Kingma and Ba 2015), as torch.optim.Adamax: Adam with the largest absolute gradient."""
    xp = k.xp
    beta1, beta2 = betas
    for p, g, counter, mean, largest in each(k, params, grads, state, ("step", "exp_avg", "exp_inf"), maximize):
        counter += 1
        if weight_decay:
            g = g + p * weight_decay
        moved(xp, mean, g, 1 - beta1)
        xp.multiply(largest, beta2, out=largest)
        xp.maximum(largest, abs(g) + eps, out=largest)
        xp.subtract(p, mean / largest * (lr / (1 - beta1 ** float(counter))), out=p)


@_state("optim.nadam_state")
def nadam_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.nadam_`: `step`, `mu_product`, `exp_avg` and `exp_avg_sq`."""
    return make_state(ctx, params, ("step", "mu_product", "exp_avg", "exp_avg_sq"), mu_product=1.0)


@_step(
    "optim.nadam_",
    _meta(
        "optim.nadam_",
        "optim.nadam_state",
        ("lr", "betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize"),
        lambda named: ("step", "mu_product", "exp_avg", "exp_avg_sq"),
        ("lr", "eps", "weight_decay", "momentum_decay"),
    ),
    ("step", "mu_product", "exp_avg", "exp_avg_sq"),
    mu_product=1.0,
)
def nadam_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.002,
    betas: list[float] = (0.9, 0.999),  # type: ignore[assignment]
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 0.004,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """One step of NAdam (Dozat 2016), as torch.optim.NAdam: Adam with Nesterov's momentum."""
    xp = k.xp
    beta1, beta2 = betas
    fields = ("step", "mu_product", "exp_avg", "exp_avg_sq")
    for p, g, counter, product, mean, square in each(k, params, grads, state, fields, maximize):
        counter += 1
        step = float(counter)
        if weight_decay:
            if decoupled_weight_decay:
                xp.multiply(p, 1 - lr * weight_decay, out=p)
            else:
                g = g + p * weight_decay
        mu = beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))
        after = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
        product *= mu
        moved(xp, mean, g, 1 - beta1)
        square_mean(xp, square, g, beta2)
        scale = xp.sqrt(square / (1 - beta2**step)) + eps
        done = float(product)
        xp.subtract(p, g / scale * (lr * (1 - mu) / (1 - done)), out=p)
        xp.subtract(p, mean / scale * (lr * after / (1 - done * after)), out=p)


@_state("optim.radam_state")
def radam_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.radam_`: `step`, `exp_avg` and `exp_avg_sq`."""
    return make_state(ctx, params, ("step", "exp_avg", "exp_avg_sq"))


@_step(
    "optim.radam_",
    _meta(
        "optim.radam_",
        "optim.radam_state",
        ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay", "maximize"),
        lambda named: ("step", "exp_avg", "exp_avg_sq"),
        ("lr", "eps", "weight_decay"),
    ),
    ("step", "exp_avg", "exp_avg_sq"),
)
def radam_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.001,
    betas: list[float] = (0.9, 0.999),  # type: ignore[assignment]
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """One step of RAdam (Liu 2020), as torch.optim.RAdam: Adam's rates only where their variance is known.

    The length of the mean of squares, rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t), must be above 5.
    """
    xp = k.xp
    beta1, beta2 = betas
    longest = 2 / (1 - beta2) - 1
    for p, g, counter, mean, square in each(k, params, grads, state, ("step", "exp_avg", "exp_avg_sq"), maximize):
        counter += 1
        step = float(counter)
        if weight_decay:
            if decoupled_weight_decay:
                xp.multiply(p, 1 - lr * weight_decay, out=p)
            else:
                g = g + p * weight_decay
        moved(xp, mean, g, 1 - beta1)
        square_mean(xp, square, g, beta2)
        rest = 1 - beta2**step
        length = longest - 2 * step * beta2**step / rest
        change = mean * (lr / (1 - beta1**step))
        if length > 5:
            known = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            change = change * (rest**0.5 * known**0.5) / (xp.sqrt(square) + eps)
        xp.subtract(p, change, out=p)
