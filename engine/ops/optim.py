"""Optimizer steps as operations over explicit state.

`optim.adam_state {params}` makes the state, an object of lists of tensors, one for each parameter; `optim.adam_` takes
`params`, `grads` and that state, changes parameters and state in place, records no tape and returns nothing. The step
counters are tensors too, so a program that repeats a step says all of it. Formulas and their order are those of
torch.optim's single-tensor implementations; a parameter whose gradient is null is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, State, op, special
from engine.dtypes import float32
from engine.errors import Hint, Invalid, MissingParameter, ShapeMismatch
from engine.op import Spec
from engine.samples import S, T
from engine.tensor import Tensor, fresh

FAMILY = "optim"


def check_pairs(params: Sequence[Any], grads: Sequence[Any], op: str) -> None:
    """Refuses gradients that do not fit their parameters."""
    if len(params) != len(grads):
        raise Invalid(
            f"{op} takes one gradient for each parameter: got {len(params)} params and {len(grads)} grads",
            code="gradient-count",
            hint=Hint("gradient-each", count=len(params)),
            param="grads",
        )
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        if g is not None and g.shape != p.shape:
            raise ShapeMismatch(
                f"the gradient of parameter {i} has shape {list(g.shape)}, the parameter {list(p.shape)}", param="grads"
            )
        if not (p.dtype.is_floating or p.dtype.is_complex):
            raise Invalid(f"parameter {i} is of dtype {p.dtype.name}; optimizers change floats", param="params")


# Fields that hold one number for a parameter: a 0-d float32 tensor.
COUNTERS = frozenset(("step", "mu_product", "eta", "mu"))


def check_state(
    params: Sequence[Any],
    state: Any,
    fields: Sequence[str],
    op: str,
    maker: str,
    unused: Sequence[str] = (),
    shape_of: Callable[[str, Sequence[int]], tuple[int, ...]] | None = None,
) -> None:
    """Refuses a state without one of the fields, or with one that is neither among them nor among the `unused`.

    `shape_of` gives the shape of a field from its parameter's, where they are not the same.
    """
    if state is None:
        raise MissingParameter(
            f"{op} needs a state: make it once with {maker}", param="state", hint=Hint("make-state", op=maker)
        )
    for field in fields:
        found = state.get(field)
        if found is None or len(found) != len(params):
            raise Invalid(
                f"the state's {field!r} must hold {len(params)} tensors, one for each parameter",
                code="bad-state",
                param="state",
                hint=Hint("make-state", op=maker),
            )
        if field in COUNTERS:
            continue
        for p, s in zip(params, found, strict=True):
            if tuple(s.shape) != (tuple(p.shape) if shape_of is None else shape_of(field, p.shape)):
                raise ShapeMismatch(
                    f"a {field} has shape {list(s.shape)}, its parameter {list(p.shape)}", param="state"
                )
    for field in state:
        if field not in fields and field not in unused:
            raise Invalid(
                f"the state has no field {field!r} here: {', '.join(fields)}", code="bad-state", param="state"
            )


_SAID = {"lr": "learning rate", "eps": "epsilon value"}


def check_rates(op: str, **rates: float) -> None:
    """Refuses negative rates, in torch.optim's words."""
    for name, value in rates.items():
        if not value >= 0:
            words = f"Invalid {_SAID.get(name, f'{name} value')}: {value}"
            raise Invalid(words, code="bad-rate", hint=Hint("rate-range", name=name), param=name, op=op)


def check_betas(betas: Any) -> None:
    """Refuses what are not two numbers in [0, 1)."""
    if len(betas) != 2:
        raise Invalid(f"betas are two numbers, got {len(betas)}", param="betas")
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise Invalid(f"Invalid beta parameter at index {i}: {beta}", param="betas")


def make_state(ctx: Any, params: Sequence[Tensor], fields: Sequence[str], **fills: float) -> dict[str, list[Tensor]]:
    """Zeros, or the number in `fills`, like each parameter for every field; counters are float32 as in PyTorch."""
    out: dict[str, list[Tensor]] = {}
    for field in fields:
        rows = []
        for p in params:
            xp = p.backend.xp
            fill: complex = fills.get(field, 0.0)
            if field in COUNTERS:
                spec, array = Spec((), float32), xp.full((), fill, dtype=float32.np)
            else:
                ctx.admit(p.nbytes)
                if p.dtype.is_complex and fill:  # real and imaginary parts are two independent numbers
                    fill = complex(fill, fill)
                spec, array = p.spec, xp.full(p.shape, fill, dtype=p.dtype.compute.np)
                array = p.backend.cast(array, p.dtype.compute, p.dtype)
            rows.append(fresh(array, spec, p.backend, ctx.ledger))
        out[field] = rows
    return out


def _descent(k: K, p: Any, g: Any, weight_decay: float, maximize: bool) -> Any:
    """The gradient to follow: turned around for maximize, with weight decay; a new array where it is not `g` itself."""
    if maximize:
        g = -g
    if weight_decay:
        g = g + p * weight_decay
    return g


def each(
    k: K, params: Any, grads: Any, state: Any, fields: Sequence[str], maximize: bool = False
) -> Iterator[tuple[Any, ...]]:
    """(parameter, gradient, one array for each field) of the parameters that have a gradient.

    Complex ones come as the real numbers that they are made of, since PyTorch's optimizers treat real and imaginary
    parts as independent; what was done to copies is written back.
    """
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        if g is None:
            continue
        own = [p, *(state[field][i] for field in fields)]
        seen = [_parts(k, x) for x in own]
        g = _parts(k, g)
        yield (seen[0], -g if maximize else g, *seen[1:])
        for x, made in zip(own, seen, strict=True):
            if x.dtype.kind == "c":
                x[...] = made.view(x.dtype).reshape(x.shape)


def _parts(k: K, x: Any) -> Any:
    """Real and imaginary parts side by side in one line; what is real as it is."""
    if x.dtype.kind != "c":
        return x
    return k.xp.ascontiguousarray(x.reshape(-1)).view(x.real.dtype)


PARAMS = {"params": [T(3, 2), T(2)], "grads": [T(3, 2, grad=False), T(2, grad=False)]}
EXAMPLE = {"params": [[0.5, 1.5]], "grads": [[0.25, -0.25]]}


# ---------------------------------------------------------------- SGD

# Elements from which BLAS's y += a x pays. What is far larger is in no cache: there a plan gains more by making the
# gradient and this step tile by tile.
_AXPY_FROM, _AXPY_TO = 1 << 12, 1 << 20
_INDEX = 1 << 31  # what BLAS counts with


def _takes_axpy(k: K, params: Sequence[Array], lr: float) -> bool:
    sizes = [prod(p.shape) for p in params]
    return k.backend.kind == "cpu" and lr != 0 and max(sizes, default=0) >= _AXPY_FROM and min(sizes) <= _AXPY_TO


def _axpy(k: K, p: Array, g: Array, a: float) -> bool:
    """p += a * g in one pass that rounds once, as PyTorch's does; False where BLAS has none for these arrays."""
    if p.size < _AXPY_FROM or p.dtype.char not in "fd" or g.dtype != p.dtype:
        return False
    if not (p.flags.c_contiguous and g.flags.c_contiguous):
        return False
    if prod(p.shape) >= _INDEX or k.xp.may_share_memory(g, p):
        return False
    k.backend.axpy(a, g, p)
    return True


@special(family=FAMILY, name="optim.sgd_state", returns="object of lists of Tensors", example={"params": [[0.5, 1.5]]})
def sgd_state(ctx: Any, params: list[Array]) -> dict[str, list[Tensor]]:
    """The state of `optim.sgd_` with momentum: `step` and `momentum_buffer` for each parameter."""
    return make_state(ctx, params, ("step", "momentum_buffer"))


def _sgd_meta(
    k: K,
    params: Any,
    grads: Any,
    state: Any = None,
    lr: float = 0.001,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> None:
    check_pairs(params, grads, "optim.sgd_")
    check_rates("optim.sgd_", lr=lr, momentum=momentum, weight_decay=weight_decay)
    if nesterov and (momentum <= 0 or dampening != 0):
        raise Invalid("Nesterov momentum requires a momentum and zero dampening", param="nesterov")
    if momentum or state is not None:
        check_state(params, state, ("step", "momentum_buffer"), "optim.sgd_ with momentum", "optim.sgd_state")


@op(
    family=FAMILY,
    name="optim.sgd_",
    meta=_sgd_meta,
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[S(PARAMS["params"], PARAMS["grads"], lr=0.1)],
    example={**EXAMPLE, "lr": 0.1},
)
def sgd_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State | None = None,
    lr: float = 0.001,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> None:
    """One step of stochastic gradient descent, as torch.optim.SGD: params -= lr * grads, with momentum if asked.

    momentum_buffer = momentum * momentum_buffer + (1 - dampening) * grad, from the second step on; the first one
    starts it with the gradient. Needs a state only with momentum.
    """
    xp = k.xp
    blas = _takes_axpy(k, params, lr)
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        if g is None:
            continue
        g = _descent(k, p, g, weight_decay, maximize)
        if momentum and state is not None:
            counter, buffer = state["step"][i], state["momentum_buffer"][i]
            first = float(counter) == 0
            counter += 1
            xp.multiply(buffer, momentum, out=buffer)
            xp.add(buffer, g if first or not dampening else g * (1 - dampening), out=buffer)
            g = g + buffer * momentum if nesterov else buffer
        elif state is not None:
            state["step"][i] += 1
        if not (blas and _axpy(k, p, g, -lr)):
            xp.subtract(p, g * lr, out=p)


# ---------------------------------------------------------------- Adam and AdamW


def _adam_fields(amsgrad: bool) -> tuple[str, ...]:
    return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ()))


@special(family=FAMILY, name="optim.adam_state", returns="object of lists of Tensors", example={"params": [[0.5, 1.5]]})
def adam_state(ctx: Any, params: list[Array], amsgrad: bool = False) -> dict[str, list[Tensor]]:
    """The state of `optim.adam_` and `optim.adamw_`: `step`, `exp_avg`, `exp_avg_sq` (and `max_exp_avg_sq`)."""
    return make_state(ctx, params, _adam_fields(amsgrad))


def _adam_check(op: str) -> Any:
    def meta(
        k: K,
        params: Any,
        grads: Any,
        state: Any,
        lr: float = 0.001,
        betas: Any = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        check_pairs(params, grads, op)
        check_rates(op, lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        check_state(params, state, _adam_fields(amsgrad), op, "optim.adam_state")

    return meta


def _adam_step(
    k: K,
    params: Any,
    grads: Any,
    state: Any,
    lr: float,
    betas: Any,
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> None:
    xp = k.xp
    beta1, beta2 = betas
    for p, g, counter, mean, square, *more in each(k, params, grads, state, _adam_fields(amsgrad), maximize):
        counter += 1
        step = number_in(counter)
        if weight_decay:
            if decoupled:
                xp.multiply(p, 1 - lr * weight_decay, out=p)
            else:
                g = g + p * weight_decay
        root, rate = (1 - beta2**step) ** 0.5, lr / (1 - beta1**step)
        if not amsgrad and (run := k.backend.compiled("adam", p, g, mean, square)) is not None:
            rates = xp.asarray([1 - beta1, 1 - beta2, beta2, root, eps, rate], p.dtype)
            run(*[a.reshape(-1) for a in (p, g, mean, square)], rates)
            continue
        work = moved(xp, mean, g, 1 - beta1)
        square_mean(xp, square, g, beta2, work)
        if amsgrad:
            xp.maximum(more[0], square, out=more[0])
            square = more[0]
        xp.sqrt(square, out=work)
        xp.true_divide(work, root, out=work)
        xp.add(work, eps, out=work)
        xp.true_divide(mean, work, out=work)
        xp.multiply(work, rate, out=work)
        xp.subtract(p, work, out=p)


def number_in(counter: Any) -> Any:
    """The number that a counter holds; where a plan is being made, what stands for it in every round."""
    number = getattr(counter, "number", None)
    return float(counter) if number is None else number()


def moved(xp: Any, mean: Any, g: Any, weight: float) -> Any:
    """mean += weight * (g - mean); the array it worked in."""
    work = xp.asarray(xp.subtract(g, mean))
    xp.multiply(work, weight, out=work)
    xp.add(mean, work, out=mean)
    return work


def square_mean(xp: Any, square: Any, g: Any, beta: float, work: Any = None) -> None:
    """square = beta * square + (1 - beta) * g^2."""
    work = xp.asarray(xp.multiply(g, g, out=work))
    xp.multiply(work, 1 - beta, out=work)
    xp.multiply(square, beta, out=square)
    xp.add(square, work, out=square)


_ADAM_SAMPLE = {
    "step": [T(values=0.0, dtype="float32"), T(values=0.0, dtype="float32")],
    "exp_avg": [T(3, 2, grad=False), T(2, grad=False)],
    "exp_avg_sq": [T(3, 2, low=0.1, grad=False), T(2, low=0.1, grad=False)],
}
_ADAM_EXAMPLE = {
    **EXAMPLE,
    "state": {
        "step": [{"data": 0, "dtype": "float32"}],
        "exp_avg": [{"data": [0, 0], "dtype": "float32"}],
        "exp_avg_sq": [{"data": [0, 0], "dtype": "float32"}],
    },
    "lr": 0.01,
}


@op(
    family=FAMILY,
    name="optim.adam_",
    meta=_adam_check("optim.adam_"),
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[S(PARAMS["params"], PARAMS["grads"], _ADAM_SAMPLE, lr=0.1)],
    example=_ADAM_EXAMPLE,
)
def adam_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.001,
    betas: list[float] = (0.9, 0.999),  # type: ignore[assignment]
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
) -> None:
    """One step of Adam (Kingma and Ba, 2015), as torch.optim.Adam; weight decay is added to the gradient."""
    _adam_step(k, params, grads, state, lr, betas, eps, weight_decay, amsgrad, maximize, decoupled=False)


@op(
    family=FAMILY,
    name="optim.adamw_",
    meta=_adam_check("optim.adamw_"),
    vjp=None,
    mutates=("params", "state"),
    returns="value",
    samples=[S(PARAMS["params"], PARAMS["grads"], _ADAM_SAMPLE, lr=0.1)],
    example=_ADAM_EXAMPLE,
)
def adamw_(
    k: K,
    params: list[Array],
    grads: list[Array | None],
    state: State,
    lr: float = 0.001,
    betas: list[float] = (0.9, 0.999),  # type: ignore[assignment]
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
    maximize: bool = False,
) -> None:
    """One step of AdamW (Loshchilov and Hutter, 2019), as torch.optim.AdamW; weight decay shrinks the parameters."""
    _adam_step(k, params, grads, state, lr, betas, eps, weight_decay, amsgrad, maximize, decoupled=True)
