"""Plans: rounds of a repeated program as one Python function of NumPy calls.

`trace.py` says what a round does, call by call. Here that list becomes source text: calls whose results nobody needs
are left out, ufuncs write into memory that is kept from round to round, views of such memory are taken once, and runs
of ufuncs over large arrays go tile by tile, so that what one writes the next one finds in the cache. Guards stay, and
so does every call that draws random numbers or writes into memory that was there before.

The values are those of the interpreter bit for bit: the same functions run in the same order, element-wise ones on
parts of the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any

import numpy as np

from engine.backend import Array
from engine.cells import Cell, NotPlanned
from engine.lower import Constant, Slot, Step
from engine.trace import Tracer

TILE = 1 << 15  # elements of a tile
TILED_FROM = 1 << 16  # elements of an array from which tiles pay
_FILE = "<plan>"
_OUT_BY_NAME = frozenset((np.maximum, np.minimum))  # NumPy takes their `out` by name alone


class Plan:
    """A function that runs rounds. `carried`: (slot where a round finds it, slot where it leaves it) by name.

    `asked`: slots whose arrays are wanted after a round, by name.
    """

    def __init__(self, tracer: Tracer, carried: Mapping[str, tuple[Slot, Slot]], asked: Mapping[str, Slot]) -> None:
        self.carried = dict(carried)
        self.asked = dict(asked)
        self._static: dict[Slot, Array] = dict(tracer.externals)
        for start, _ in self.carried.values():
            self._static.pop(start, None)
        self._tracer = tracer
        self._places: list[tuple[int, int]] = []  # (first line, step of the program), in order of lines
        self._names: dict[str, Any] = {}
        self._constants: dict[int, str] = {}
        self._lines: list[str] = []
        self.steps = self._kept(tracer.steps)
        self._elide()
        self._allocate()
        self._run = self._build()

    # ------------------------------------------------ which calls, and where their results go

    def _kept(self, steps: Sequence[Step]) -> list[Step]:
        """The steps without those whose results nobody needs."""
        needed = {end for _, end in self.carried.values()} | set(self.asked.values())
        kept = []
        for step in reversed(steps):
            if step.removable and not step.writes and needed.isdisjoint(step.outputs):
                continue
            kept.append(step)
            needed.update(step.inputs)
        kept.reverse()
        return kept

    def _elide(self) -> None:
        """A copy is no copy where nobody else sees what is copied: the gradients of `autograd.grad`."""
        arrays = self._tracer.arrays
        uses: dict[Slot, int] = {}
        for step in self.steps:
            for x in (*step.inputs, *step.outputs):
                uses[x] = uses.get(x, 0) + 1
        other: dict[Slot, Slot] = {}
        kept = []
        for step in self.steps:
            step.arguments = _renamed(step.arguments, other)
            step.writes = tuple(other.get(x, x) for x in step.writes)
            if step.function is np.ndarray.copy:
                source, made = step.arguments[0], arrays[step.arguments[0]]
                if uses[source] == 2 and source not in self._static and made.base is None and made.flags.c_contiguous:
                    other[step.outputs[0]] = source
                    continue
            kept.append(step)
        self.steps = kept
        self.carried = {name: (start, other.get(end, end)) for name, (start, end) in self.carried.items()}
        self.asked = {name: other.get(slot, slot) for name, slot in self.asked.items()}

    def _allocate(self) -> None:
        """Memory of ufuncs' results and views of what stays in place are settled once."""
        arrays = self._tracer.arrays
        moving = {end for _, end in self.carried.values()}  # slots whose memory is another one in every round
        for step in self.steps:
            if not step.ufunc:
                moving.update(step.outputs)
        remaining = []
        for step in self.steps:
            if step.ufunc and not step.writes and step.outputs[0] not in moving:
                self._static.setdefault(step.outputs[0], arrays[step.outputs[0]])
            elif step.view and all(x in self._static for x in step.inputs):
                self._static[step.outputs[0]] = arrays[step.outputs[0]]
                continue
            remaining.append(step)
        self.steps = remaining

    # ------------------------------------------------ source text

    def _build(self) -> Any:
        starts = [start for start, _ in self.carried.values()]
        ends = [end for _, end in self.carried.values()]
        parameters = "".join(f", v{s}" for s in starts)
        lines = self._lines
        body = self._body()
        lines.append(f"def make({', '.join(self._names)}):")
        lines.append(f" def run(rounds{parameters}):")
        lines.append("  for i in range(rounds):")
        for place, text in body:
            self._places.append((len(lines) + 1, place))
            lines.append(f"   {text}")
        if starts:
            left = "".join(f"v{s}, " for s in starts)
            lines.append(f"   {left}= {''.join(self._named(e) + ', ' for e in ends)}")
        if not body and not starts:
            lines.append("   pass")
        wanted = [f"v{s}" for s in starts] + [self._named(slot) for slot in self.asked.values()]
        lines.append(f"  return ({''.join(name + ', ' for name in wanted)})")
        lines.append(" return run")
        namespace: dict[str, Any] = {}
        exec(_compiled("\n".join(lines)), namespace)  # text that was made above, from no one's words
        return namespace["make"](**self._names)

    def _body(self) -> list[tuple[int, str]]:
        body: list[tuple[int, str]] = []
        at = 0
        while at < len(self.steps):
            group = self._tileable(at)
            if len(group) > 1:
                body += self._tiled(group)
                at += len(group)
            else:
                body += self._call(self.steps[at])
                at += 1
        for slot in self.asked.values():
            self._named(slot)
        for _, end in self.carried.values():
            self._named(end)
        return body

    def _call(self, step: Step) -> list[tuple[int, str]]:
        lines = []
        if step.k is not None:
            lines.append((step.place, f"{self._constant(step.k)}.spec = {self._constant(step.spec)}"))
        arguments = [self._argument(x) for x in step.arguments]
        function = self._constant(step.function)
        if step.ufunc:
            slot = step.outputs[0]
            text = f"{function}({', '.join(arguments)}"
            if slot in self._static or step.writes or slot in step.inputs:
                keyword = "out=" if step.function in _OUT_BY_NAME else ""
                lines.append((step.place, f"{text}, {keyword}{self._named(slot)})"))
            else:
                lines.append((step.place, f"v{slot} = {self._constant(np.asarray)}({text}))"))
            return lines
        text = f"{function}({', '.join(arguments)})"
        targets = [f"v{slot}" if slot >= 0 else "_" for slot in step.outputs]
        if any(slot >= 0 for slot in step.outputs):
            text = f"{targets[0] if step.single else ', '.join(targets) + ','} = {text}"
        lines.append((step.place, text))
        return lines

    def _argument(self, x: Any) -> str:
        if type(x) is list:
            return f"[{', '.join(map(self._argument, x))}]"
        return self._constant(x.value) if type(x) is Constant else self._named(x)

    def _named(self, slot: Slot) -> str:
        if slot in self._static:
            name = f"x{slot}"
            self._names[name] = self._static[slot]
            return name
        return f"v{slot}"

    def _constant(self, value: Any) -> str:
        name = self._constants.get(id(value))
        if name is None:
            name = self._constants[id(value)] = f"c{len(self._constants)}"
            self._names[name] = value
        return name

    # ------------------------------------------------ tiles

    def _tileable(self, at: int) -> list[Step]:
        """The steps from `at` on that go over the same large arrays, element by element."""
        arrays = self._tracer.arrays
        group: list[Step] = []
        shape = None
        for step in self.steps[at:]:
            if (
                not isinstance(step.function, np.ufunc) or not step.ufunc or step.function.signature is not None
            ):  # a product of matrices is not element by element
                break
            slots = [*step.inputs, *step.outputs]
            if any(slot not in self._static for slot in slots):
                break
            target = arrays[slots[-1]]
            if target.size < TILED_FROM or (shape is not None and target.shape != shape):
                break
            if any(arrays[s].shape not in (target.shape, ()) or not arrays[s].flags.c_contiguous for s in slots):
                break
            shape = target.shape
            group.append(step)
        return group

    def _tiled(self, group: Sequence[Step]) -> list[tuple[int, str]]:
        """One loop over tiles. What only this group sees is as large as one tile."""
        slots = list(dict.fromkeys(x for step in group for x in (*step.inputs, *step.outputs)))
        inner = {step.outputs[0] for step in group if not step.writes} - self._seen_outside(group)
        arrays = self._tracer.arrays
        size = max(arrays[slot].size for slot in slots)
        scratch = {slot: np.empty(TILE, arrays[slot].dtype) for slot in inner}
        rows = []
        for start in range(0, size, TILE):
            stop = min(start + TILE, size)
            rows.append(
                tuple(
                    scratch[slot][: stop - start]
                    if slot in scratch
                    else self._static[slot].reshape(-1)[start:stop]
                    if arrays[slot].shape
                    else self._static[slot]
                    for slot in slots
                )
            )
        for slot in inner:
            self._static[slot] = scratch[slot]
        lines = [(group[0].place, f"for {', '.join(f't{slot}' for slot in slots)}, in {self._constant(rows)}:")]
        for step in group:
            arguments = [self._constant(x.value) if type(x) is Constant else f"t{x}" for x in step.arguments]
            keyword = "out=" if step.function in _OUT_BY_NAME else ""
            arguments.append(f"{keyword}t{step.outputs[0]}")
            lines.append((step.place, f" {self._constant(step.function)}({', '.join(arguments)})"))
        return lines

    def _seen_outside(self, group: Sequence[Step]) -> set[Slot]:
        inside = set(map(id, group))
        seen = {end for _, end in self.carried.values()} | set(self.asked.values())
        for step in self.steps:
            if id(step) not in inside:
                seen.update((*step.inputs, *step.outputs))
        # A view that was settled once may look into a result.
        bases = {id(a.base) for a in self._static.values() if a.base is not None}
        return seen | {slot for slot, a in self._static.items() if id(a) in bases}

    # ------------------------------------------------ running

    def run(self, rounds: int, carried: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Runs so many rounds: the carried arrays afterwards, and those that were asked for."""
        found = self._run(rounds, *carried)
        return list(found[: len(self.carried)]), list(found[len(self.carried) :])

    def place_of(self, traceback: TracebackType | None) -> tuple[int, int]:
        """Where an exception came up: the step of the program, and how many rounds of the run were over."""
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code.co_filename == _FILE and frame.f_code.co_name == "run":
                place = max((p for p in self._places if p[0] <= traceback.tb_lineno), default=(0, 0))[1]
                return place, frame.f_locals.get("i", 0)
            traceback = traceback.tb_next
        return 0, 0

    @property
    def nbytes(self) -> int:
        """Bytes of the memory that the plan keeps for results."""
        kept = {id(a): a.nbytes for slot, a in self._static.items() if slot not in self._tracer.externals}
        return sum(kept.values())


def _renamed(arguments: Sequence[Any], other: Mapping[Slot, Slot]) -> list[Any]:
    return [x if type(x) is Constant else _renamed(x, other) if type(x) is list else other.get(x, x) for x in arguments]


@lru_cache(maxsize=256)
def _compiled(text: str) -> CodeType:
    """The same rounds have the same text: what differs is in the arguments of `make`."""
    return compile(text, _FILE, "exec")


def carried_over(tracer: Tracer, name: str, start: Any, end: Any) -> tuple[Slot, Slot] | None:
    """How what a name stands for goes from a round to the next; None where it is the same tensor in both.

    Raises NotPlanned where the next round would find something of another kind.
    """
    if not isinstance(end, Cell):
        raise NotPlanned(f"{name!r} is no tensor, and goes from round to round")
    if end.origin is not None and end.origin is start:
        return None
    first = tracer.cell(start)
    if start.requires_grad or end.requires_grad or start.view is not None or end.view is not None:
        raise NotPlanned(f"{name!r} takes its tape, or its base, from round to round")
    if end.spec != first.spec or end.strides != first.strides:
        raise NotPlanned(f"the shape or dtype of {name!r} changes from round to round")
    own = end.origin is None and end.array is end.storage.buf and end.array.base is None
    if not own or start.array is not start.storage.buf or id(start.storage) in tracer.bumps:
        raise NotPlanned(f"{name!r} shares memory from round to round")
    return tracer.slot(first.array), tracer.slot(end.array)


__all__ = ["Plan", "carried_over"]
