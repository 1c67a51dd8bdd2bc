"""Programs that explain themselves: the notes on what they return, and why a tensor has no gradient.

Programs that are not explained pay nothing: a `Watch` gives the steps of its program operations that take notes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from engine.reasons import Case, Note, data_dtype, explain, merged, outputs
from engine.scope import Scope
from engine.steps import Program, Repeat, Step
from engine.tape import FREED, shown_grad_fn
from engine.tensor import Tensor

SEARCHED = 10_000  # nodes of tapes that are looked through for what was computed from a tensor

# ---------------------------------------------------------------- gradients


def no_gradient(
    t: Tensor, name: str, others: Sequence[tuple[str, Tensor]], passes: Sequence[Sequence[int]] = ()
) -> Note:
    """Why `.grad` of `t` is none. `others` may be computed from it; `passes` are this program's backward steps."""
    if not (t.dtype.is_floating or t.dtype.is_complex):
        return Note("grad.whole", name=name, dtype=t.dtype.name)
    if shown_grad_fn(t) is not None:
        return Note("grad.not-leaf", name=name, grad_fn=shown_grad_fn(t))
    if not t.requires_grad:
        return Note("grad.not-required", name=name)
    found = _computed_from(t, others)
    if found is None:
        return Note("grad.not-reached", name=name) if passes else Note("grad.unused", name=name)
    other, freed = found
    if freed:
        return Note("grad.cleared", name=name, other=other)
    return Note("grad.not-from", name=name, other=other) if passes else Note("grad.no-backward", name=name, other=other)


def _computed_from(t: Tensor, others: Sequence[tuple[str, Tensor]]) -> tuple[str, bool] | None:
    """(name, whether its tape was used up) of a tensor that was computed from `t`: the newest whose tape is whole."""
    budget = SEARCHED
    used: tuple[str, bool] | None = None
    for name, other in sorted(others, key=lambda x: x[1].edge[0].seq if x[1].edge else 0, reverse=True):
        stack = [other.edge[0]] if other.edge is not None else []
        seen: set[int] = set()
        reached = freed = False
        while stack and budget:
            node = stack.pop()
            if node.seq in seen:
                continue
            seen.add(node.seq)
            budget -= 1
            freed = freed or node.saved is FREED
            for edge in node.edges:
                reached = reached or edge is t
                if type(edge) is tuple:
                    stack.append(edge[0])
        if reached and not freed:
            return name, False
        if reached and used is None:
            used = name, True
    return used


def gradient(t: Tensor, name: str, others: Sequence[tuple[str, Tensor]], passes: Sequence[Sequence[int]] = ()) -> Note:
    """What is to be said of `.grad`: where it comes from, or why there is none."""
    if t.grad is None:
        return no_gradient(t, name, others, passes)
    return Note("grad.accumulated", name=name)


def on_tensor(t: Tensor, name: str, others: Sequence[tuple[str, Tensor]]) -> list[dict[str, Any]]:
    """The notes on a tensor that is only read: whose view it is, and its gradient."""
    notes = []
    if t.view is not None:
        base = next((label for label, other in others if other is t.view.base), None)
        notes.append(Note("memory.view-of", base=base) if base is not None else Note("memory.view-unnamed"))
    notes.append(gradient(t, name, others))
    return [note.to_data() for note in notes]


# ---------------------------------------------------------------- programs

Path = tuple[int, ...]


class Watch:
    """Takes the notes of a program while it runs: `Watch(program)` replaces its steps by steps that are watched.

    Of a step that runs in many rounds, the notes of the last round remain.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.by_tensor: WeakKeyDictionary[Tensor, dict[Path, list[Note]]] = WeakKeyDictionary()
        self.by_name: dict[str, tuple[Path, list[Note]]] = {}  # what is bound whole, tensor or not
        self.passes: list[Path] = []
        program.steps = self._watched(program.steps, ())

    def _watched(self, steps: Sequence[Step | Repeat], path: Path) -> list[Step | Repeat]:
        found: list[Step | Repeat] = []
        for i, step in enumerate(steps):
            here = (*path, i)
            if isinstance(step, Repeat):
                found.append(replace(step, steps=self._watched(step.steps, here)))
            else:
                op = copy.copy(step.op)
                op.run = self._runner(step, here)
                found.append(replace(step, op=op))
        return found

    def _runner(self, step: Step, path: Path) -> Callable[[tuple[Any, ...]], Any]:
        op = step.op

        def later(case: Case, made: Generator[None, None, Any]) -> Generator[None, None, Any]:
            found = yield from made
            self._take(step, path, case, found)
            return found

        def run(args: tuple[Any, ...]) -> Any:
            case = Case(op, args, step.given)
            made = op.run(args)
            if op.functions:
                return later(case, made)
            self._take(step, path, case, made)
            return made

        return run

    def _take(self, step: Step, path: Path, case: Case, made: Any) -> None:
        if case.op.name in ("backward", "_backward", "autograd.backward") and path not in self.passes:
            self.passes.append(path)
        notes = explain(case, made)
        for _, t in outputs(case.rule, made):
            mine = []
            for about, note in notes:
                if about is t or about is None:
                    one = Note(note.key, **note.facts)
                    mine.append(one)
            if mine:
                self.by_tensor.setdefault(t, {})[path] = mine
        if type(step.out) is str:
            self.by_name[step.out] = path, merged(notes)

    def notes(self, scope: Scope) -> dict[str, list[dict[str, Any]]]:
        """The notes on what the program returns, by returned name; each says by its `step` which step it explains."""
        session = scope.session
        others = [(name, t) for name, t in scope.names.items() if type(t) is Tensor]
        known = {id(t) for _, t in others}
        for reference in session.references():
            t = session.find(reference)
            if t is not None and id(t) not in known:
                others.append((reference, t))
        return {name: self._of(name, scope, others) for name in self.program.returns}

    def _of(self, name: str, scope: Scope, others: Sequence[tuple[str, Tensor]]) -> list[dict[str, Any]]:
        if name.endswith(".grad") and name not in scope.names:
            base = scope.resolve(name[:-5])
            return [gradient(base, name[:-5], others, self.passes).to_data()] if type(base) is Tensor else []
        found = scope.resolve(name)
        if type(found) is not Tensor:
            path, notes = self.by_name.get(name, ((), []))
            return [note.to_data(path) for note in notes]
        data = [note.to_data(path) for path, notes in self.by_tensor.get(found, {}).items() for note in notes]
        value = self.program.inputs.get(name)
        made = bool(data)
        if not made and value is not None and type(value) is not str:
            data.append(data_dtype(name, value, found.dtype).to_data())
        if found.grad is None and found.requires_grad and (not made or found.edge is not None or self.passes):
            data.append(no_gradient(found, name, others, self.passes).to_data())
        return data
