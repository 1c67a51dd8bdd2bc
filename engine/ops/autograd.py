"""Autograd as operations: backward, gradients, flags; and the session's own operations on names."""

from __future__ import annotations

import math
from typing import Any

from engine.autograd import run_backward
from engine.context import Context
from engine.declare import Array, op, special
from engine.dtypes import dtype
from engine.errors import Call, Hint, Invalid, NoGradient, NoSuchTensor, Param
from engine.samples import S, T
from engine.tape import require_grad, shown_grad_fn

_LEAF = {"data": [1.5, 2.5, 3.5], "requires_grad": True}
_SCALAR = {"data": 3.5, "requires_grad": True}


@special(family="autograd", returns="value", example={"input": _SCALAR})
def backward(
    ctx: Context,
    input: Array,
    gradient: Array | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: list[Array] | None = None,
) -> None:
    """Adds the gradient of `input` to `.grad` of the leaves it depends on, or of `inputs` alone."""
    run_backward([input], [gradient], retain_graph=retain_graph, create_graph=create_graph, inputs=inputs)


@special(family="autograd", name="autograd.backward", returns="value", example={"tensors": [_SCALAR]})
def autograd_backward(
    ctx: Context,
    tensors: list[Array],
    grad_tensors: list[Array | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: list[Array] | None = None,
) -> None:
    """Backward from several tensors at once; `grad_tensors` has a gradient, or null for a scalar, for each."""
    seeds = _seeds(tensors, grad_tensors, "grad_tensors")
    run_backward(tensors, seeds, retain_graph=retain_graph, create_graph=create_graph, inputs=inputs)


def _seeds(outputs: list[Any], given: list[Any] | None, param: str) -> list[Any]:
    if given is None:
        return [None] * len(outputs)
    if len(given) != len(outputs):
        raise Invalid(f"got {len(outputs)} tensors and {len(given)} gradients", code="gradient-count", param=param)
    return given


@special(
    family="autograd",
    name="autograd.grad",
    returns="list of Tensors",
    example={"outputs": [_SCALAR], "inputs": [_SCALAR], "allow_unused": True},
)
def autograd_grad(
    ctx: Context,
    outputs: list[Array],
    inputs: list[Array],
    grad_outputs: list[Array | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
) -> list[Any]:
    """The gradients of `outputs` with respect to `inputs`, without touching `.grad`; null where unused is allowed."""
    found = run_backward(
        outputs,
        _seeds(outputs, grad_outputs, "grad_outputs"),
        retain_graph=retain_graph,
        create_graph=create_graph,
        inputs=inputs,
        accumulate=False,
    )
    if not allow_unused:
        for i, g in enumerate(found):
            if g is None:
                raise NoGradient(
                    f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set "
                    "allow_unused=True if this is the desired behavior.",
                    code="unused-input",
                    hint=Hint("allow-unused"),
                    param="inputs",
                )
    return found


@special(family="autograd", samples=[S(T(2, 3))])
def requires_grad_(ctx: Context, input: Array, requires_grad: bool = True) -> Array:
    """Sets whether the tape records what is done with a leaf."""
    require_grad(input, requires_grad, made=False)
    return input


@special(
    family="autograd",
    returns="value",
    samples=[S(T(2, 3))],
    example={"input": {"data": [1.5, 2.5], "requires_grad": True}},
)
def retain_grad(ctx: Context, input: Array) -> None:
    """Lets a tensor that is no leaf have its gradient in `.grad` after backward; a leaf has it anyway."""
    if not requires_grad.op.run((input,)):
        raise NoGradient(
            "can't retain_grad on Tensor that has requires_grad=False",
            hint=Hint("requires-grad", Call("requires_grad_", {"input": Param("input")})),
            param="input",
        )
    if input.edge is not None and not input.retains:
        ctx.undo.slot(input, "retains")
        ctx.retain(input)


@special(family="autograd", returns="value", samples=[S(T(2, 3))])
def retains_grad(ctx: Context, input: Array) -> bool:
    """Whether a tensor that is no leaf retains its gradient; false for a leaf, which has it anyway."""
    return bool(input.retains)


@special(family="autograd", samples=[S(T(2, 3))])
def detach_(ctx: Context, input: Array) -> Array:
    """Takes a tensor out of the tape: it becomes a leaf that does not require grad."""
    if input.view is not None:
        raise Invalid(
            "Can't detach views in-place. Use detach() instead. If you are using DistributedDataParallel (DDP) for "
            "training, and gradient_as_bucket_view is set as True, gradients are views of DDP buckets, and hence "
            "detach_() cannot be called on these gradients. To fix this error, please refer to the "
            "Optimizer.zero_grad() function in torch/optim/optimizer.py as a solution.",
            code="view-detached-in-place",
            hint=Hint("detach", Call("detach", {"input": Param("input")})),
        )
    ctx.undo.slot(input, "edge")
    ctx.undo.slot(input, "requires_grad")
    input.edge, input.requires_grad = None, False
    return input


@special(family="autograd", returns="value")
def is_grad_enabled(ctx: Context) -> bool:
    """Whether the tape records: false under `no_grad`, and after `set_grad_enabled` false in the same program."""
    return ctx.grad_enabled


@special(family="autograd", returns="value", example={"mode": False})
def set_grad_enabled(ctx: Context, mode: bool) -> None:
    """Sets whether the tape records what the following steps do, until the end of the program."""
    ctx.grad_enabled = mode


@special(family="autograd", returns="value", samples=[S(T(2, 3))])
def is_leaf(ctx: Context, input: Array) -> bool:
    """Whether a tensor has no history: it was given, or does not require grad."""
    return input.edge is None and shown_grad_fn(input) is None


@special(family="autograd", returns="value", samples=[S(T(2, 3))])
def requires_grad(ctx: Context, input: Array) -> bool:
    """Whether the tape records what is done with a tensor."""
    return bool(input.requires_grad or shown_grad_fn(input) is not None)


@special(family="autograd", returns="value", samples=[S(T(2, 3))])
def grad_fn(ctx: Context, input: Array) -> str | None:
    """The name of the tape's node that made a tensor; null for a leaf."""
    return shown_grad_fn(input)


@special(family="autograd", name="autograd.set_detect_anomaly", returns="value", example={"mode": True})
def set_detect_anomaly(ctx: Context, mode: bool, check_nan: bool = True) -> None:
    """Sets whether backward refuses gradients with a NaN, in this session from now on.

    The error names the function, and its `step` the step of the program that made it. It costs a look at every
    gradient. `check_nan` false turns the look off, and leaves nothing.
    """
    ctx.undo.force_slot(ctx, "anomaly")
    ctx.anomaly = mode and check_nan


@special(family="autograd", name="is_anomaly_enabled", returns="value")
def is_anomaly_enabled(ctx: Context) -> bool:
    """Whether backward refuses gradients with a NaN."""
    return ctx.anomaly


@special(family="autograd", returns="value", example={"d": "float32"})
def set_default_dtype(ctx: Context, d: str) -> None:
    """The dtype that JSON floats and factories have in this session."""
    wanted = dtype(d)
    if not wanted.is_floating:
        raise Invalid(
            "only floating-point types are supported as the default type", code="bad-default-dtype", param="d"
        )
    ctx.undo.force_slot(ctx, "default_dtype")
    ctx.default_dtype = wanted


@special(family="autograd", returns="value", samples=[S()])
def get_default_dtype(ctx: Context) -> str:
    """The dtype that JSON floats and factories have in this session, by name."""
    return ctx.default_dtype.name


_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}
_LARGEST = {"precision": 100, "edgeitems": 1_000_000, "linewidth": 1_000_000}


@special(family="session", returns="value", example={"precision": 2})
def set_printoptions(
    ctx: Context,
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How this session prints tensors; a profile is one of default, short, full. `sci_mode` is null if not given."""
    if profile is not None and profile not in _PROFILES:
        raise Invalid(f"unknown profile {profile!r}: the profiles are {', '.join(_PROFILES)}", param="profile")
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        if not 0 <= value <= _LARGEST.get(name, math.inf):
            upto = f" to {_LARGEST[name]}" if name in _LARGEST else ""
            raise Invalid(f"{name} must be a number from 0{upto}, and {value} is none", param=name)
    start = ctx.print_options if profile is None else _PROFILES[profile]
    ctx.undo.force_slot(ctx, "print_options")
    ctx.print_options = {**start, **changes, "sci_mode": sci_mode}


# ---------------------------------------------------------------- names


@special(family="session", returns="value")
def _release(ctx: Context, input: str) -> None:
    """Forgets a tensor's id and name; an id that was forgotten before is no error."""
    session = ctx.session
    t = session.find(input)
    if t is not None:
        session.release(t)
    elif not session.existed(input):
        raise NoSuchTensor(f"there is no tensor {input!r}", hint=Hint("list-tensors"))


@special(family="session", returns="value")
def _release_unnamed(ctx: Context) -> int:
    """Forgets all tensors that have no name; how many they were."""
    session = ctx.session
    unnamed = [t for t in session.tensors.values() if t.name is None]
    for t in unnamed:
        session.release(t)
    return len(unnamed)


@special(family="session", returns="value")
def _backward(
    ctx: Context,
    input: Array,
    gradient: Array | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: list[Array] | None = None,
) -> dict[str, Any]:
    """`backward`, answering with the accumulated gradient of each tensor it reached, by name or id."""
    reached = run_backward([input], [gradient], retain_graph=retain_graph, create_graph=create_graph, inputs=inputs)
    return {t.name or t.id or "": t.grad for t in reached if t is not None and t.id is not None}


@special(family="session")
def _clear_grad(ctx: Context, input: Array) -> Array:
    """Sets `.grad` to none."""
    ctx.undo.slot(input, "grad")
    input.grad = None
    return input


@special(family="session")
def _rename(ctx: Context, input: Array, name: str | None = None) -> Array:
    """Gives a tensor another name, or none."""
    session = ctx.session
    if name is None and input.name is not None:
        ctx.undo.item(session.names, input.name)
        ctx.undo.slot(input, "name")
        del session.names[input.name]
        input.name = None
    elif name is not None:
        session.register(input, name)
    return input


# ---------------------------------------------------------------- gradients that do not depend on an input


@op(family="autograd", meta=lambda k, grad, inputs: grad, samples=[S(T(2, 3), [T(4), T()])])
def _tied(k: Any, grad: Array, inputs: list[Array]) -> Array:
    """`grad`, as a function of `inputs` on which it does not depend: their gradients are zeros (see Op.ties)."""
    return grad.copy()


@_tied.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.grad and g, [F.new_zeros(g, x.shape) for x in saved.inputs]
