"""Plans of rounds on a CUDA device: runs of element-wise steps as one generated kernel each.

As tiles are on the CPU: neighbouring steps that go over arrays of one shape. What only such a run sees is never
written to memory; what stays gets the memory that the plan keeps, where it keeps any. A step that reads what another
one of the run writes elsewhere (a transposed view of it, say) begins a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.backend import Array, ModuleBackend
from engine.cells import NotPlanned
from engine.compile import Plan
from engine.fused.launch import Call, Space
from engine.fused.source import MOST_FUNCTIONS, MOST_OPERANDS, Chain
from engine.fused.table import FUNCTIONS, Element, code_of, scalar
from engine.lower import Constant, Slot, Step
from engine.trace import Tracer

Place = tuple[Any, ...]  # where an array lies: two with the same are the same values


def _place(array: Array) -> Place:
    strides = [s for s, n in zip(array.strides, array.shape, strict=True) if n != 1]
    return (array.data.ptr, array.dtype.str, array.shape, tuple(strides))


def _reach(array: Array) -> tuple[int, int]:
    """The bytes between which an array lies."""
    low = high = int(array.data.ptr)
    for size, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += stride * (size - 1)
        else:
            high += stride * (size - 1)
    return low, high + array.itemsize


class _Run:
    """A run of steps that becomes a chain: values by the place where they lie, and what is read and written."""

    def __init__(self, arrays: Sequence[Array], shape: tuple[int, ...]) -> None:
        self.arrays, self.shape = arrays, shape
        self.steps: list[Step] = []
        self.inputs: dict[Place, Slot] = {}
        self.written: dict[Place, Slot] = {}
        self._numbers = 0

    def take(self, step: Step) -> bool:
        """Whether the step may be one of the run; then it is."""
        target = step.outputs[0]
        made = self.arrays[target]
        if made.shape != self.shape or len(self.steps) >= MOST_FUNCTIONS:
            return False
        read = {_place(self.arrays[s]): s for s in self._arrays_of(step)}
        fresh = {p: s for p, s in read.items() if p not in self.written and p not in self.inputs}
        numbers = self._numbers + sum(type(x) is Constant or _is_number(self.arrays[x]) for x in step.arguments)
        place = _place(made)
        if len(self.inputs) + len(fresh) + len(self.written) + 1 + numbers > MOST_OPERANDS:
            return False
        if any(self._clashes(p, s, self.written) for p, s in fresh.items()):
            return False  # it reads what the run writes in another order
        if place not in self.written and (
            self._clashes(place, target, self.written) or self._clashes(place, target, {**self.inputs, **fresh})
        ):
            return False
        try:
            Space(self.shape, [self.arrays[s] for s in (*self.inputs.values(), *fresh.values(), target)])
        except ValueError:
            return False
        self.inputs.update(fresh)
        self.written[place] = target
        self._numbers = numbers
        self.steps.append(step)
        return True

    def _arrays_of(self, step: Step) -> list[Slot]:
        return [s for s in step.inputs if not (_is_like(step, s) or _is_number(self.arrays[s]))]

    def _clashes(self, place: Place, slot: Slot, others: Mapping[Place, Slot]) -> bool:
        """Whether memory is shared with arrays that lie there otherwise."""
        low, high = _reach(self.arrays[slot])
        for p, s in others.items():
            if p == place and self.arrays[s].shape == self.shape:
                continue  # each thread reads and writes its own element
            start, stop = _reach(self.arrays[s])
            if low < stop and start < high:
                return True
        return False


def _is_like(step: Step, slot: Slot) -> bool:
    """Whether a step asks an operand for its shape alone."""
    function = step.function
    return type(function) is Element and function.name == "fill" and step.arguments[0] == slot


def _is_number(x: Any) -> bool:
    """Whether a slot holds a Python float, which is another one in every round."""
    return type(x) is float


class FusedPlan(Plan):
    """A plan in which runs of element-wise steps on a device are kernels.

    `kernels`: how many kernels a round calls; `unfused`: why runs are array code instead, where some are.
    """

    def __init__(
        self,
        tracer: Tracer,
        carried: Mapping[str, tuple[Slot, Slot]],
        asked: Mapping[str, Slot],
        *,
        places: Mapping[int, int],
    ) -> None:
        self.kernels = 0
        self._backends = {b.ndarray: b for b in tracer.ctx.backends if isinstance(b, ModuleBackend)}
        self._reaches: dict[Slot, tuple[int, int]] = {}
        super().__init__(tracer, carried, asked, places=places)
        del self._reaches

    def _fold(self) -> None:
        """What is the same in all runs is a number among others for a kernel."""

    def _elide(self) -> None:
        """On a device an array does not say whose memory it has, and a copy is part of a kernel."""

    def _allocate(self) -> None:
        super()._allocate()
        steps: list[Step] = []
        for step in self.steps:  # numbers are read as early as may be, so that they stand between no two kernels
            at = len(steps)
            if self._gives_number(step):
                while at and not self._feeds(steps[at - 1], step):
                    at -= 1
            steps.insert(at, step)
        self.steps = steps

    def _gives_number(self, step: Step) -> bool:
        return len(step.outputs) == 1 and step.outputs[0] >= 0 and _is_number(self._arrays[step.outputs[0]])

    def _feeds(self, earlier: Step, step: Step) -> bool:
        """Whether a step gives what another one reads, in whichever of its views."""
        arrays = self._arrays
        made = [x for x in (*earlier.outputs, *earlier.writes) if x >= 0]
        for slot in step.inputs:
            if _is_number(arrays[slot]):
                if slot in made:
                    return True
                continue
            low, high = self._reach(slot)
            for x in made:
                if type(arrays[x]) in self._backends:
                    start, stop = self._reach(x)
                    if low < stop and start < high:
                        return True
        return False

    def _backend(self, array: Array) -> ModuleBackend:
        return self._backends[type(array)]

    def _seen_outside(self, group: Sequence[Step]) -> set[Slot]:
        """Those that base and memory tell: a view made from a pointer has no base."""
        seen = super()._seen_outside(group)
        arrays = self._arrays
        if type(group[0].function) is Element:
            outside = [(s, self._reach(s)) for s in seen if type(arrays[s]) in self._backends]
            for slot in {self._root(s) for step in group for s in step.outputs} - seen:
                low, high = self._reach(slot)
                if any(low < stop and start < high for _, (start, stop) in outside):
                    seen.add(slot)
        return seen

    def _reach(self, slot: Slot) -> tuple[int, int]:
        found = self._reaches.get(slot)
        if found is None:
            found = self._reaches[slot] = _reach(self._arrays[slot])
        return found

    # ------------------------------------------------ runs

    def _tileable(self, at: int) -> list[Step]:
        first = self.steps[at]
        if type(first.function) is not Element:
            return super()._tileable(at)
        arrays = self._arrays
        run = _Run(arrays, arrays[first.outputs[0]].shape)
        if not arrays[first.outputs[0]].size:
            return []
        for step in self.steps[at:]:
            if type(step.function) is not Element or not step.function.loop or not run.take(step):
                break
        return run.steps

    def _tiled(self, group: Sequence[Step]) -> list[tuple[int, str]]:
        if type(group[0].function) is not Element:
            return super()._tiled(group)
        return self._fused(group)

    def _fused(self, group: Sequence[Step]) -> list[tuple[int, str]]:
        """One call of a kernel."""
        arrays = self._arrays
        shape = arrays[group[0].outputs[0]].shape
        seen = self._seen_outside(group)
        inputs: dict[Place, Slot] = {}
        written: dict[Place, Slot] = {}
        for step in group:
            for s in step.inputs:
                if _is_like(step, s) or _is_number(arrays[s]):
                    continue
                place = _place(arrays[s])
                if place not in written:
                    inputs.setdefault(place, s)
            written[_place(arrays[step.outputs[0]])] = step.outputs[0]
        kept: dict[Place, Slot] = {}
        for step in group:
            slot = step.outputs[0]
            if step.writes or self._root(slot) in seen:
                kept[_place(arrays[slot])] = slot
        targets = list(kept.values())
        if not targets:
            return []  # nobody needs what it gives
        space = Space(shape, [arrays[s] for s in (*inputs.values(), *targets)])
        chain, scalars = self._chain(group, inputs, kept, space)
        backend = self._backend(arrays[targets[0]])
        kernel = backend.chains.kernel(chain)
        if type(kernel) is str:
            self.unfused, kernel = kernel, None
        else:
            self.kernels = (self.kernels or 0) + 1
        call = Call(chain, space, scalars, kernel, backend.xp, backend.sp)
        fresh = [s for s in targets if not self._settled(s) and not self._exists(s, group)]
        lines = [(group[0].place, f"v{s} = {self._constant(self._new(s))}()") for s in fresh]
        read = ", ".join(self._named(s) for s in inputs.values())
        into = ", ".join(self._named(s) for s in targets)
        launch = self._constant(self._launch(call, [arrays[s] for s in inputs.values()]))
        numbers = [x for step in group for x in step.arguments if type(x) is not Constant and _is_number(arrays[x])]
        given = "".join(f"{self._named(x)}, " for x in numbers)
        lines.append((group[0].place, f"{launch}(({read}{',' if read else ''}), ({into},), ({given}))"))
        for slot in {s for step in group for s in step.outputs} - set(targets):
            if self._root(slot) not in seen:
                self._static.pop(slot, None)
                self._own.discard(slot)
        return lines

    def _exists(self, slot: Slot, group: Sequence[Step]) -> bool:
        """Whether a target is there before the run: it is written into."""
        first = next(step for step in group if step.outputs[0] == slot)
        return bool(first.writes) or slot in first.inputs

    def _new(self, slot: Slot) -> Callable[[], Array]:
        """Memory for a result that goes on to other rounds."""
        array = self._arrays[slot]
        if not array.flags.c_contiguous:
            raise NotPlanned("a result that goes from round to round is not in row-major order")
        empty, shape, d = self._backend(array).xp.empty, array.shape, array.dtype
        return lambda: empty(shape, dtype=d)

    @staticmethod
    def _launch(call: Call, inputs: Sequence[Array]) -> Callable[..., None]:
        """The call, its operands lying as they did when the round was traced."""
        lay = [(a.shape, a.strides) for a in inputs]
        launch = call.launch
        plainly = call.plain().launch

        def run(read: tuple[Array, ...], into: tuple[Array, ...], numbers: tuple[float, ...]) -> None:
            for (shape, strides), a in zip(lay, read, strict=True):
                if a.strides != strides or a.shape != shape:  # a call gave its result in another order this time
                    plainly(read, into, numbers)
                    return
            launch(read, into, numbers)

        return run

    def _chain(
        self, group: Sequence[Step], inputs: Mapping[Place, Slot], kept: Mapping[Place, Slot], space: Space
    ) -> tuple[Chain, list[Any]]:
        arrays = self._arrays
        scalars: list[Any] = []
        codes: list[str] = []
        for step in group:
            for at, x in enumerate(step.arguments):
                if type(x) is Constant or _is_number(arrays[x]):
                    loop = step.function.loop if at or not FUNCTIONS[step.function.name].first else "b1"  # type: ignore[attr-defined]
                    scalars.append(scalar(x.value, loop) if type(x) is Constant else None)
                    codes.append(loop)
        numbers = iter(range(len(inputs), len(inputs) + len(scalars)))
        value: dict[Place, int] = {place: i for i, place in enumerate(inputs)}
        first = len(inputs) + len(scalars)
        functions = []
        for i, step in enumerate(group):
            element: Element = step.function  # type: ignore[assignment]
            operands = []
            for x in step.arguments:
                if type(x) is Constant or _is_number(arrays[x]):
                    operands.append(next(numbers))
                elif _is_like(step, x):
                    operands.append(-1)
                else:
                    operands.append(value[_place(arrays[x])])
            functions.append((element.name, element.loop, tuple(operands)))
            value[_place(arrays[step.outputs[0]])] = first + i
        layouts = space.layouts
        return (
            Chain(
                tuple((code_of(arrays[s].dtype), layout) for s, layout in zip(inputs.values(), layouts, strict=False)),
                tuple(codes),
                tuple(functions),
                tuple((value[p], layout) for p, layout in zip(kept, layouts[len(inputs) :], strict=True)),
                len(space.sizes),
                space.wide,
            ),
            scalars,
        )

    # ------------------------------------------------ single steps

    def _call(self, step: Step) -> list[tuple[int, str]]:
        if type(step.function) is not Element:
            return super()._call(step)
        slot = step.outputs[0]
        lines = []
        if not self._settled(slot) and not self._exists(slot, [step]):
            lines.append((step.place, f"v{slot} = {self._constant(self._new(slot))}()"))
        arguments = [*map(self._argument, step.arguments), self._named(slot)]
        lines.append((step.place, f"{self._constant(step.function)}({', '.join(arguments)})"))
        return lines


__all__ = ["FusedPlan"]
