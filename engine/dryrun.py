"""Dry runs: a program's shapes, dtypes and memory from metas. Nothing changes, and next to nothing is computed.

What has no meta, since it works on tensors themselves or on none, is called: on the session's own tensors and the
program's literals where nothing has changed them yet, and on zeros for what the program would make. Results that are
read off values are null, for nobody knows them before the run; how many elements depend on values (`nonzero`) is told
as the most there can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.answer import TensorAnswer
from engine.arguments import references
from engine.backend import CPU
from engine.carriers import infer, infer_inplace
from engine.errors import EngineError, Invalid, NoGradient, NotScalar
from engine.op import COMPOSITE, INPLACE, LIST, SPECIAL, VIEW, Op, Spec
from engine.program import Bound, returned
from engine.scope import Outcome, Scope, named
from engine.steps import Program, Repeat, Step
from engine.tape import shown_grad_fn
from engine.tensor import Ledger, Tensor, fresh
from engine.undo import Undo

Reply = dict[str, Any]

# What is said of a tensor without a look at its values.
_FACTS = frozenset(
    (
        *("numel", "nelement", "dim", "ndimension", "ndim", "size", "shape", "element_size", "itemsize", "nbytes"),
        *("is_floating_point", "is_complex", "is_signed", "dtype", "requires_grad", "result_type", "type"),
    )
)
# In-place changes of a tensor's own sizes; all others leave them as they are.
_RESHAPING = frozenset(
    (
        *("squeeze_", "unsqueeze_", "transpose_", "swapaxes_", "swapdims_", "t_", "as_strided_"),
        *("resize_", "resize_as_", "set_"),
    )
)
_NO_INPUT = frozenset(("nn.utils.clip_grad_norm_",))  # changes its input and gives something else
_AS_THEY_ARE = frozenset(("requires_grad_", "_backward", "_clear_grad", "_rename", "_release", "_release_unnamed"))


class Planned:
    """A tensor that a program would make. `known`: it is there already, and has these values."""

    __slots__ = ("device", "grad_fn", "known", "owns", "requires_grad", "spec")

    def __init__(
        self,
        spec: Spec,
        device: str,
        requires_grad: bool,
        grad_fn: str | None,
        owns: bool,
        known: Tensor | None = None,
    ) -> None:
        self.spec, self.known = spec, known
        self.device = device
        self.requires_grad = requires_grad
        self.grad_fn = grad_fn
        self.owns = owns

    def answer(self) -> TensorAnswer:
        s = self.spec
        return TensorAnswer(
            id=None,
            name=None,
            shape=s.shape,
            dtype=s.dtype.name,
            device=self.device,
            numel=s.numel,
            nbytes=s.nbytes,
            requires_grad=self.requires_grad,
            is_leaf=self.grad_fn is None,
            grad_fn=self.grad_fn,
            version=0,
            etag=None,
        )


class _DryScope(Scope):
    """Names that stand for planned tensors; the session's own are planned from what they are."""

    __slots__ = ("bytes", "graded")

    def __init__(self, session: Any, strict: bool) -> None:
        super().__init__(session, strict)
        self.bytes = 0
        self.graded: dict[int, Planned] = {}

    def resolve(self, name: str, param: str | None = None) -> Any:
        if name.endswith(".grad") and name not in self.names:
            base = self.resolve(name[:-5], param)
            return self.graded.get(id(base)) if type(base) is Planned else None
        found = super().resolve(name, param)
        if type(found) is Tensor:
            shown = shown_grad_fn(found)
            self.names[name] = made = Planned(
                found.spec, found.device, found.requires_grad or shown is not None, shown, False, found
            )
            if found.grad is not None:
                self.graded[id(made)] = Planned(found.grad.spec, found.device, False, None, False)
            return made
        return found

    def tensor(self, name: str, param: str) -> Any:
        found = self.resolve(name, param)
        return found if type(found) is Planned else super().tensor(name, param)

    def tensors(self, name: str, param: str, op: str, *, nulls: bool = False) -> Any:
        found = self.resolve(name, param)
        if type(found) is list and all(type(t) is Planned or (nulls and t is None) for t in found):
            return found
        return super().tensors(name, param, op, nulls=nulls)

    def state(self, name: str, param: str) -> Any:
        found = self.names.get(name)
        if type(found) is dict:
            return found
        groups = super().state(name, param)
        return {k: [Planned(t.spec, t.device, t.requires_grad, None, False) for t in v] for k, v in groups.items()}

    def literal(self, value: Any, param: str, empty: type = float, adopt: bool = False) -> Any:
        t = super().literal(value, param, empty)
        self.bytes += t.nbytes
        return Planned(t.spec, t.device, t.requires_grad, None, True, t)


def dry_run(program: Program, session: Any) -> Reply:
    """The reply that the program would give: tensors without id and values, and the bytes it would need at most."""
    ctx = session.ctx
    undo = ctx.undo = Undo(ctx.seq + 1)
    try:
        return _reply(program, session)
    finally:
        undo.rollback()
        ctx.seq, ctx.grad_enabled = undo.start_seq - 1, True
        ctx.undo = Undo(ctx.seq + 1)


def _reply(program: Program, session: Any) -> Reply:
    scope = _DryScope(session, program.strict)
    for name, value in program.inputs.items():
        scope.names[name] = scope.resolve(value, name) if isinstance(value, str) else scope.literal(value, name)
    steps_run = _steps(program.steps, scope, [], not program.no_grad)
    collected: dict[str, list[Any]] = {}
    results = {name: _shown(scope.resolve(name, "return")) for name in program.returns}
    return {
        "results": results,
        "collected": collected,
        "kept": dict.fromkeys(program.keep),
        "steps_run": steps_run,
        "peak_bytes": scope.bytes,
    }


def _shown(found: Any) -> Any:
    if type(found) is Planned:
        return found.answer()
    if type(found) is list:
        return [_shown(x) for x in found]
    if type(found) is dict:
        return {k: _shown(x) for k, x in found.items()}
    return found


def _steps(steps: Sequence[Step | Repeat], scope: _DryScope, path: list[int], grad: bool) -> int:
    count = 0
    for i, step in enumerate(steps):
        if isinstance(step, Repeat):
            # What a round makes, the next one makes again: one round shows every shape and the memory of all.
            count += step.times * _steps(step.steps, scope, [*path, i], grad) if step.times else 0
            continue
        try:
            args = step.values.copy()
            for at, get in step.getters:
                args[at] = get(scope)
            for at in step.op.functions:
                if args[at] is None:
                    continue
                args[at] = _outputs(step.op, args, at, scope, [*path, i])
            made = _call(step.op, args, scope, grad and not step.no_grad)
        except EngineError as e:
            if e.step is None:
                e.step, e.op = [*path, i], e.op or step.op.name
                e.hint = e.hint.fill(references(step.given, step.op)) if e.hint else None
            raise
        count += 1
        if type(step.out) is str:
            scope.names[step.out] = named(step.op, made)
        elif step.out is not None:
            parts = made if type(made) is list else [made]
            scope.names.update({n: p for n, p in zip(step.out, parts, strict=False) if n})
    return count


def _outputs(op: Op, args: list[Any], at: int, scope: _DryScope, path: list[int]) -> Any:
    """What one call of a function argument would give, at the operation's inputs."""
    function = args[at]
    if "inputs" in op.positions:
        inputs = args[op.positions["inputs"]]
    else:  # a function of as many tensors as it has inputs
        inputs = [args[slot] for slot, _ in op.slots][: len(function.inputs)]
    given = []
    for x in inputs if type(inputs) is list else [inputs]:
        point = Planned(x.spec, x.device, True, None, False)
        given.append(point)
    inside: Any = Bound(function, scope, Outcome(scope, {}, 0), path, []).inside(given)  # a _DryScope too
    _steps(function.steps, inside, path, True)
    scope.bytes += inside.bytes
    return returned(function, inside)


def _call(op: Op, args: list[Any], scope: _DryScope, grad: bool) -> Any:
    ctx = scope.ctx
    tensors = [t for at, form in op.slots for t in (args[at] or [] if form == LIST else [args[at]])]
    planned = [t for t in tensors if type(t) is Planned]
    needs = grad and any(t.requires_grad for t in planned) and op.differentiable
    if op.name.endswith("_"):
        for t in planned:
            t.known = None
    specs = [_spec(a) for a in args]
    device = next((t.device for t in planned), ctx.default_backend.name)
    if op.kind == SPECIAL:
        return _special(op, args, specs, scope, planned)
    backend = next((b for b in ctx.ks if b.name == device), ctx.default_backend)
    if op.kind == INPLACE and op.functional:
        infer_inplace(op, ctx.k(backend), specs)
        t = planned[0]
        t.requires_grad = t.requires_grad or needs
        return t
    out, _ = infer(op, ctx.k(backend), specs)
    last = ctx.k(backend).last
    shown = op.composite_node or (last.node if op.kind == COMPOSITE and last is not None else op.node)
    return _planned(out, op, shown, device, needs, scope)


def _spec(value: Any) -> Any:
    if type(value) is Planned:
        return value.spec
    if type(value) is list:
        return [_spec(v) for v in value]
    return {k: _spec(v) for k, v in value.items()} if type(value) is dict else value


def _planned(out: Any, op: Op, node: str, device: str, needs: bool, scope: _DryScope) -> Any:
    if type(out) is Spec:
        flag = needs and (out.dtype.is_floating or out.dtype.is_complex)
        if op.kind != VIEW:
            scope.bytes += out.nbytes
        return Planned(out, device, flag, node if flag else None, op.kind != VIEW)
    if type(out) in (list, tuple):
        return [_planned(s, op, node, device, needs, scope) for s in out]
    if type(out) is dict:
        return {k: _planned(s, op, node, device, needs, scope) for k, s in out.items()}
    return out


def _special(op: Op, args: list[Any], specs: list[Any], scope: _DryScope, planned: list[Planned]) -> Any:
    """Operations on tensors themselves: what they give, by their meta, or their first tensor."""
    if op.meta is not None:
        k = scope.ctx.k(scope.ctx.default_backend)
        device = planned[0].device if planned else scope.ctx.default_backend.name
        return _planned(op.meta(k, *specs), op, op.node, device, any(p.requires_grad for p in planned), scope)
    if op.name == "autograd.grad":
        return [Planned(t.spec, t.device, False, None, True) for t in args[1]]
    if op.name in ("backward", "autograd.backward"):
        for t in args[0] if op.name == "autograd.backward" else [args[0]]:
            if not t.requires_grad:
                raise NoGradient("element 0 of tensors does not require grad and does not have a grad_fn")
            if t.spec.numel != 1 and args[1] is None:
                raise NotScalar("grad can be implicitly created only for scalar outputs")
        for found in list(scope.names.values()):
            if type(found) is Planned and found.requires_grad and found.grad_fn is None:
                scope.bytes += found.spec.nbytes
                scope.graded[id(found)] = Planned(found.spec, found.device, False, None, True)
        return None
    if op.name == "requires_grad_" and planned:
        planned[0].requires_grad = bool(args[1])
    if op.name == "detach_":
        planned[0].requires_grad, planned[0].grad_fn = False, None
    if op.functions or op.name in _AS_THEY_ARE or (planned and not op.tensor_result and op.name not in _FACTS):
        return planned[0] if op.tensor_result and planned else None
    changes = op.name.endswith("_") and bool(planned)
    if changes and op.name not in _RESHAPING and op.name not in _NO_INPUT:
        return planned[0]
    made = _called(op, args, scope, changes)
    if changes and op.name not in _NO_INPUT:
        planned[0].spec = made.spec
        return planned[0]
    return made


def _called(op: Op, args: list[Any], scope: _DryScope, changes: bool) -> Any:
    """What an operation gives of stand-ins: tensors that are there and known, unless it `changes` them, or zeros."""
    stands: dict[int, tuple[Planned, Tensor]] = {}
    given = tuple(_stand_in(value, stands, changes) for value in args)
    try:
        made = op.run(given)
    except EngineError as error:
        if changes or all(planned.known is not None for planned, _ in stands.values()):
            raise
        raise Invalid(
            f"a dry run has zeros for values that are not there yet, and of these {op.name} says: {error.detail}",
            code="dry-run-values",
            op=op.name,
        ) from error
    device = next((planned.device for planned, _ in stands.values()), None)
    return _plan_of(made, {id(t.storage): planned for planned, t in stands.values()}, device, scope)


def _stand_in(value: Any, stands: dict[int, tuple[Planned, Tensor]], changes: bool) -> Any:
    if type(value) is Planned:
        if id(value) not in stands:
            known = None if changes else value.known
            stands[id(value)] = value, _zeros(value, leaf=not changes) if known is None else known
        return stands[id(value)][1]
    if type(value) is list:
        return [_stand_in(v, stands, changes) for v in value]
    return {k: _stand_in(v, stands, changes) for k, v in value.items()} if type(value) is dict else value


def _zeros(planned: Planned, *, leaf: bool) -> Tensor:
    """Memory that the system gives when it is touched, and of a ledger that nobody asks."""
    spec = planned.spec
    t = fresh(np.zeros(spec.shape, spec.dtype.np), spec, CPU, Ledger(1 << 62))
    t.requires_grad = leaf and planned.requires_grad
    return t


def _plan_of(found: Any, theirs: dict[int, Planned], device: str | None, scope: _DryScope) -> Any:
    """A result with tensors as planned ones; those on a stand-in's memory take none of their own."""
    if type(found) is Tensor:
        owns = id(found.storage) not in theirs
        if owns:
            scope.bytes += found.nbytes
        shown = shown_grad_fn(found)
        return Planned(found.spec, device or found.device, found.requires_grad or shown is not None, shown, owns)
    if type(found) in (list, tuple):
        return [_plan_of(x, theirs, device, scope) for x in found]
    return {k: _plan_of(x, theirs, device, scope) for k, x in found.items()} if type(found) is dict else found
