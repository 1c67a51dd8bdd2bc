"""torch.autograd.functional: derivatives of a function, which is a program given as an argument.

`func` is called with tensors and gives a generator, whose value is what the function returns; so a program of many
steps lets others have their turn between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from engine.autograd import run_backward
from engine.context import Context, grad_mode
from engine.declare import Array, Function, special
from engine.errors import Call, Hint, Invalid, NoGradient, NotScalar, Param, ShapeMismatch
from engine.op import Spec
from engine.record import REC
from engine.tape import require_grad
from engine.tensor import Tensor

Calls = Generator[None, None, Any]
Callee = Callable[[Sequence[Tensor]], Calls]
Grads = list[Tensor | None]

_POINT = {"data": [1.5, 2.5], "requires_grad": True}
_SQUARES = {
    "inputs": ["x"],
    "steps": [{"op": "mul", "args": {"input": "x", "other": "x"}, "out": "y"}],
    "return": "y",
}
_SUM_OF_SQUARES = {
    "inputs": ["x"],
    "steps": [
        {"op": "mul", "args": {"input": "x", "other": "x"}, "out": "y"},
        {"op": "sum", "args": {"input": "y"}, "out": "s"},
    ],
    "return": "s",
}

# ---------------------------------------------------------------- what all of them do


def as_list(given: Any) -> tuple[bool, list[Any]]:
    """(whether it was a list, the list)."""
    return (True, list(given)) if type(given) in (list, tuple) else (False, [given])


def tensors_of(given: Any, what: str, name: str) -> tuple[bool, list[Tensor]]:
    """(whether it was a list, the tensors). Raises Invalid where something else is among them."""
    many, items = as_list(given)
    for i, x in enumerate(items):
        if type(x) is not Tensor:
            where = f"value at index {i}" if many else f"given {what}"
            raise Invalid(
                f"The {what} given to {name} must be either a Tensor or a tuple of Tensors but the {where} has type "
                f"{type(x)}.",
                code="not-a-tensor",
                param="func" if what.startswith("outputs") else what,
            )
    return many, items


def shaped(many: bool, items: list[Any]) -> Any:
    """One where one was given, a list where a list was."""
    return items if many else items[0]


def points(inputs: Sequence[Tensor], create_graph: bool, need_graph: bool = True) -> list[Tensor]:
    """The tensors a derivative is taken at: cut from their history, unless the result is to be differentiated too."""
    made = []
    for x in inputs:
        if create_graph and x.requires_grad:
            made.append(REC.view_as(x, x))
        else:
            made.append(cut(x))
            if need_graph:
                require_grad(made[-1])
    return made


def cut(x: Tensor) -> Tensor:
    """The tensor without its history."""
    return REC.detach(x)  # type: ignore[no-any-return]


def grads(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    seeds: Sequence[Tensor | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Grads:
    """The gradients of those outputs that have any, None where an input is not used."""
    pairs = zip(outputs, seeds or [None] * len(outputs), strict=True)
    live = [(o, s) for o, s in pairs if o is not None and o.requires_grad]
    if not live:
        return [None] * len(inputs)
    return run_backward(
        [o for o, _ in live],
        [s for _, s in live],
        inputs=inputs,
        create_graph=create_graph,
        retain_graph=retain_graph,
        accumulate=False,
    )


def _refuse(words: str) -> NoGradient:
    return NoGradient(words, code="independent", hint=Hint("strict"), param="strict")


_WORDS = {
    "hessian": "The hessian of the user-provided function with respect to input {i} is independent of the input. This "
    "is not allowed in strict mode. You should ensure that your function is thrice differentiable and that the hessian "
    "depends on the inputs.",
    "jacobian": "While computing the hessian, found that the jacobian of the user-provided function with respect to "
    "input {i} is independent of the input. This is not allowed in strict mode. You should ensure that your function "
    "is twice differentiable and that the jacobian depends on the inputs (this would be violated by a linear function "
    "for example).",
    "grad_inputs": "The gradient with respect to input {i} is independent of the inputs of the user-provided function. "
    "This is not allowed in strict mode.",
    "outputs": "Output {i} of the user-provided function does not require gradients. The outputs must be computed in a "
    "differentiable manner from the input when running in strict mode.",
}


def _check_depends(found: Sequence[Tensor | None], what: str, strict: bool) -> None:
    for i, x in enumerate(found) if strict else ():
        if x is None:
            raise _refuse(
                f"The output of the user-provided function is independent of input {i}. This is not allowed in strict "
                "mode."
            )
        if not x.requires_grad:
            raise _refuse(_WORDS[what].format(i=i))


_UNUSED = {
    "back": "The output of the user-provided function is independent of input {i}. This is not allowed in strict mode.",
    "back_trick": "The gradient with respect to the input is independent of entry {i} in the grad_outputs when using "
    "the double backward trick to compute forward mode gradients. This is not allowed in strict mode.",
    "double_back": "The jacobian of the user-provided function is independent of input {i}. This is not allowed in "
    "strict mode.",
    "double_back_trick": "The hessian of the user-provided function is independent of entry {i} in the grad_jacobian. "
    "This is not allowed in strict mode as it prevents from using the double backward trick to replace forward mode "
    "AD.",
}


def _filled(found: Grads, like: Sequence[Tensor], strict: bool, create_graph: bool, stage: str) -> list[Tensor]:
    """Zeros where there is no gradient; an error there in strict mode."""
    made = []
    for i, (g, x) in enumerate(zip(found, like, strict=True)):
        if g is None:
            if strict:
                raise _refuse(_UNUSED[stage].format(i=i))
            g = REC.zeros_like(x)
        elif strict and create_graph and not g.requires_grad:
            what = "hessian" if "double" in stage else "jacobian"
            raise _refuse(
                f"The {what} of the user-provided function is independent of input {i}. This is not allowed in strict "
                "mode when create_graph=True."
            )
        made.append(g)
    return made


def _done(found: Any, create_graph: bool) -> Any:
    if type(found) is list:
        return [_done(x, create_graph) for x in found]
    return found if create_graph else cut(found)


def _size(x: Tensor) -> str:
    return f"torch.Size({list(x.shape)})"


def _vectors(v: Any, like: Sequence[Tensor], many: bool, create_graph: bool, words: str) -> list[Tensor | None]:
    """The given v, checked against what it must look like; None where it may be left out."""
    if v is None:
        if len(like) != 1 or like[0].numel != 1:
            raise NotScalar(words, param="v", hint=Hint("give-v"))
        return [None]
    given = points(as_list(v)[1], create_graph, need_graph=False)
    if len(given) != len(like):
        raise Invalid(
            f"v is a tuple of invalid length: should be {len(like)} but got {len(given)}."
            if many
            else "The given v should contain a single Tensor.",
            code="v-count",
            param="v",
        )
    for i, (x, y) in enumerate(zip(given, like, strict=True)):
        if x.shape != y.shape:
            raise ShapeMismatch(
                f"{f'Entry {i} in ' if many else ''}v has invalid size: should be {_size(y)} but got {_size(x)}.",
                param="v",
            )
    return list(given)


_OUTPUTS = "outputs of the user-provided function"
_BY_INPUT = (
    "The vector v can only be None if the input to the user-provided function is a single Tensor with a single element."
)


def _one_element(outputs: list[Tensor], many: bool, name: str) -> None:
    if many:
        raise Invalid(f"The function given to {name} should return a single Tensor", code="one-output", param="func")
    if outputs[0].numel != 1:
        raise NotScalar(
            f"The Tensor returned by the function given to {name} should contain a single element",
            param="func",
            hint=Hint("backward-scalar", Call("sum", {"input": Param("input")}), shape=list(outputs[0].shape)),
        )


# ---------------------------------------------------------------- shapes alone, for dry runs


def _specs(given: Any) -> tuple[bool, list[Spec]]:
    return as_list(given)


def _jacobian_meta(k: Any, func: Any, inputs: Any, *rest: Any) -> Any:
    many_out, outputs = _specs(func)
    many_in, given = _specs(inputs)
    rows = [shaped(many_in, [Spec((*o.shape, *x.shape), x.dtype) for x in given]) for o in outputs]
    return shaped(many_out, rows)


def _hessian_meta(k: Any, func: Any, inputs: Any, *rest: Any) -> Any:
    many, given = _specs(inputs)
    return shaped(many, [shaped(many, [Spec((*a.shape, *b.shape), b.dtype) for b in given]) for a in given])


def _by_inputs_meta(k: Any, func: Any, inputs: Any, *rest: Any) -> Any:
    return [func, inputs]


def _by_outputs_meta(k: Any, func: Any, inputs: Any, *rest: Any) -> Any:
    return [func, func]


# ---------------------------------------------------------------- jacobian, hessian


def _jacobian(func: Callee, given: Sequence[Tensor], create_graph: bool, strict: bool) -> Calls:
    """(whether the outputs were a list, for each output a list of the Jacobians for each input), both as lists."""
    with grad_mode(True):
        inputs = points(given, create_graph)
        many, outputs = tensors_of((yield from func(inputs)), _OUTPUTS, "jacobian")
        _check_depends(outputs, "outputs", strict)
        found = []
        for i, out in enumerate(outputs):
            rows: list[list[Tensor]] = [[] for _ in inputs]
            flat = REC.reshape(out, [-1])
            for j in range(out.numel):
                row = grads([REC.select(flat, 0, j)], inputs, create_graph=create_graph, retain_graph=True)
                for at, (g, x) in enumerate(zip(row, inputs, strict=True)):
                    if g is None and strict:
                        raise _refuse(
                            f"Output {i} of the user-provided function is independent of input {at}. This is not "
                            "allowed in strict mode."
                        )
                    if g is not None and strict and create_graph and not g.requires_grad:
                        raise _refuse(
                            f"The jacobian of the user-provided function is independent of input {i}. This is not "
                            "allowed in strict mode when create_graph=True."
                        )
                    rows[at].append(REC.zeros_like(x) if g is None else g)
                yield
            found.append([_stacked(rows[at], out, x) for at, x in enumerate(inputs)])
        return many, _done(found, create_graph)


def _stacked(rows: list[Tensor], out: Tensor, x: Tensor) -> Tensor:
    size = [*out.shape, *x.shape]
    made: Tensor = REC.reshape(REC.stack(rows, 0), size) if rows else REC.new_zeros(x, size)
    return made


def _check_strategy(strategy: str, vectorize: bool, strict: bool, create_graph: bool) -> None:
    """PyTorch's refusals: what its forward mode and vmap cannot do together. The derivatives are the same."""
    name = "torch.autograd.functional.jacobian"
    words = ""
    if strategy == "forward-mode":
        if create_graph:
            words = (
                f'{name}: `create_graph=True` and `strategy="forward-mode"` are not supported together (yet). Please '
                'either set `create_graph=False` or `strategy="reverse-mode"`.'
            )
        elif strict:
            words = (
                f'{name}: `strict=True` and `strategy="forward-mode"` are not supported together (yet). Please either '
                'set `strict=False` or `strategy="reverse-mode"`.'
            )
        elif not vectorize:
            words = (
                "Computing Jacobian using forward-AD or forward-over-reverse Hessian isonly implemented for "
                "`vectorize=True`."
            )
    elif strict and vectorize:
        words = (
            f"{name}: `strict=True` and `vectorized=True` are not supported together. Please either set "
            "`strict=False` or `vectorize=False`."
        )
    if words:
        raise Invalid(words, code="strategy", param="vectorize" if "vectorize" in words else "strategy")


_MODES = ("reverse-mode", "forward-mode")


def _check_mode(strategy: str, param: str, words: str = "") -> None:
    if strategy not in _MODES:
        raise Invalid(
            'Expected strategy to be either "forward-mode" or "reverse-mode".' + words, code="strategy", param=param
        )


@special(
    family="autograd",
    name="autograd.functional.jacobian",
    returns="Tensor, or lists of Tensors",
    meta=_jacobian_meta,
    example={"func": _SQUARES, "inputs": [1.5, 2.5]},
)
def jacobian(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Calls:
    """The Jacobian of a function: all derivatives of its outputs for its inputs, of shape output + input.

    With several inputs it is a list, one for each; with several outputs, a list of these. It is computed backward, row
    by row; `vectorize` and `strategy` are taken as PyTorch takes them and change nothing.
    """
    _check_mode(
        strategy,
        "strategy",
        ' Hint: If your function has more outputs than inputs, "forward-mode" tends to be more performant. Otherwise, '
        'prefer to use "reverse-mode".',
    )
    _check_strategy(strategy, vectorize, strict, create_graph)
    many, given = tensors_of(inputs, "inputs", "jacobian")
    many_out, rows = yield from _jacobian(func, given, create_graph, strict)
    return shaped(many_out, [shaped(many, row) for row in rows])


@special(
    family="autograd",
    name="autograd.functional.hessian",
    returns="Tensor, or lists of Tensors",
    meta=_hessian_meta,
    example={"func": _SUM_OF_SQUARES, "inputs": [1.5, 2.5]},
)
def hessian(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Calls:
    """The Hessian of a function of one element: its second derivatives, of shape input + input.

    With several inputs it is a list of lists, by the first and the second input.
    """
    _check_mode(outer_jacobian_strategy, "outer_jacobian_strategy")
    _check_strategy(outer_jacobian_strategy, vectorize, strict, create_graph)
    many, given = tensors_of(inputs, "inputs", "hessian")

    def single(points: Sequence[Tensor]) -> Calls:
        several, outputs = tensors_of((yield from func(points)), _OUTPUTS, "hessian")
        _check_depends(outputs, "outputs", strict)
        _one_element(outputs, several, "hessian")
        return REC.reshape(outputs[0], [])

    def first(points: Sequence[Tensor]) -> Calls:
        _, rows = yield from _jacobian(single, points, True, False)
        _check_depends(rows[0], "jacobian", strict)
        return rows[0]

    _, rows = yield from _jacobian(first, given, create_graph, strict)
    return shaped(many, [shaped(many, row) for row in rows])


# ---------------------------------------------------------------- products with a vector


@special(
    family="autograd",
    name="autograd.functional.vjp",
    returns="list of Tensors",
    outputs=("output", "vjp"),
    meta=_by_inputs_meta,
    example={"func": _SQUARES, "inputs": [1.5, 2.5], "v": [1.5, 0.5]},
)
def vjp(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    v: Array | list[Array] | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Calls:
    """What a function gives, and v times its Jacobian; v is as the outputs are, and may be left out for one element."""
    many, given = tensors_of(inputs, "inputs", "vjp")
    with grad_mode(True):
        at = points(given, create_graph)
        several, outputs = tensors_of((yield from func(at)), _OUTPUTS, "vjp")
        _check_depends(outputs, "outputs", strict)
        words = "The vector v can only be None if the user-provided function returns a single Tensor with a single "
        seeds = _vectors(v, outputs, several, create_graph, words + "element.")
    with grad_mode(create_graph or ctx.grad_enabled):
        found = _filled(grads(outputs, at, seeds, create_graph=create_graph), at, strict, create_graph, "back")
    return [shaped(several, _done(outputs, create_graph)), shaped(many, _done(found, create_graph))]


@special(
    family="autograd",
    name="autograd.functional.jvp",
    returns="list of Tensors",
    outputs=("output", "jvp"),
    meta=_by_outputs_meta,
    example={"func": _SQUARES, "inputs": [1.5, 2.5], "v": [1.5, 0.5]},
)
def jvp(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    v: Array | list[Array] | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Calls:
    """What a function gives, and its Jacobian times v, by backward of a backward pass; v is as the inputs are."""
    many, given = tensors_of(inputs, "inputs", "jvp")
    with grad_mode(True):
        at = points(given, create_graph)
        seeds = _vectors(v, at, many, create_graph, _BY_INPUT)
        several, outputs = tensors_of((yield from func(at)), _OUTPUTS, "jvp")
        _check_depends(outputs, "outputs", strict)
        # The backward pass is linear in its cotangents, so what they are does not matter.
        duals = [_zeros(o) for o in outputs]
        back = grads(outputs, at, duals, create_graph=True)
        _check_depends(back, "grad_inputs", strict)
        found = _filled(_twice(back, duals, seeds, create_graph), outputs, strict, create_graph, "back_trick")
    return [shaped(several, _done(outputs, create_graph)), shaped(several, _done(found, create_graph))]


def _zeros(x: Tensor) -> Tensor:
    made = REC.zeros_like(x)
    if made.dtype.is_floating or made.dtype.is_complex:
        require_grad(made)
    return made  # type: ignore[no-any-return]


def _twice(back: Grads, duals: Sequence[Tensor], seeds: Sequence[Tensor | None], create_graph: bool) -> Grads:
    """Gradients of gradients for their cotangents; only those cotangents are asked for that can have one."""
    asked = [d for d in duals if d.requires_grad]
    found = iter(grads(back, asked, seeds, create_graph=create_graph))
    return [next(found) if d.requires_grad else None for d in duals]


def _second_order(name: str, func: Callee, given: list[Tensor], many: bool, v: Any, graph: bool, strict: bool) -> Calls:
    """(points, output, first gradients, v as seeds) of a function of one element."""
    at = points(given, graph)
    seeds = _vectors(v, at, many, graph, _BY_INPUT)
    several, outputs = tensors_of((yield from func(at)), _OUTPUTS, name)
    _check_depends(outputs, "outputs", strict)
    _one_element(outputs, several, name)
    first = grads(outputs, at, create_graph=True)
    _check_depends(first, "jacobian", strict)
    return at, outputs[0], first, seeds


@special(
    family="autograd",
    name="autograd.functional.vhp",
    returns="list of Tensors",
    outputs=("output", "vhp"),
    meta=_by_inputs_meta,
    example={"func": _SUM_OF_SQUARES, "inputs": [1.5, 2.5], "v": [1.5, 0.5]},
)
def vhp(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    v: Array | list[Array] | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Calls:
    """What a function of one element gives, and v times its Hessian; v is as the inputs are."""
    many, given = tensors_of(inputs, "inputs", "vhp")
    with grad_mode(True):
        at, output, first, seeds = yield from _second_order("vhp", func, given, many, v, create_graph, strict)
        found = _filled(grads(first, at, seeds, create_graph=create_graph), at, strict, create_graph, "double_back")
    return [_done(output, create_graph), shaped(many, _done(found, create_graph))]


@special(
    family="autograd",
    name="autograd.functional.hvp",
    returns="list of Tensors",
    outputs=("output", "hvp"),
    meta=_by_inputs_meta,
    example={"func": _SUM_OF_SQUARES, "inputs": [1.5, 2.5], "v": [1.5, 0.5]},
)
def hvp(
    ctx: Context,
    func: Function,
    inputs: Array | list[Array],
    v: Array | list[Array] | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Calls:
    """What a function of one element gives, and its Hessian times v. `vhp` gives the same for less."""
    many, given = tensors_of(inputs, "inputs", "hvp")
    with grad_mode(True):
        at, output, first, seeds = yield from _second_order("hvp", func, given, many, v, create_graph, strict)
        duals = [_zeros(x) for x in at]
        back = grads(first, at, duals, create_graph=True)
        found = _filled(_twice(back, duals, seeds, create_graph), at, strict, create_graph, "double_back_trick")
    return [_done(output, create_graph), shaped(many, _done(found, create_graph))]
