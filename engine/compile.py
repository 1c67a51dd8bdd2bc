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
from engine.tensor import Tensor
from engine.trace import Tracer

TILE = 1 << 15  # elements of a tile
TILED_FROM = 1 << 16  # elements of an array from which tiles pay
_FILE = "<plan>"
# Of these, one number gives what an array of it gives, whichever loop NumPy takes.
_EXACT = frozenset((np.negative, np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.absolute))
# What these do with a Python number they do with an array of it, which they need not make first.
_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
_PLAIN = frozenset(("add", "subtract", "multiply", "divide", "maximum", "minimum", "clip", *_COMPARISONS))
_OUT_BY_NAME = frozenset((np.maximum, np.minimum))  # NumPy takes their `out` by name alone


class Plan:
    """A function that runs rounds, on whatever arrays it is bound to.

    `carried`: (slot where a round finds it, slot where it leaves it) by name. `asked`: slots whose arrays are wanted
    after a round, by name. `handed`: slots whose arrays are given away after the run, so that each run makes them anew.
    `places`: numbers of the tensors from outside, by their identity. No array from outside stays with the plan.

    `kernels`: fused kernels that a round calls, None where it is on no CUDA device; `unfused`: why chains there are
    array code.
    """

    kernels: int | None = None
    unfused: str | None = None

    def __init__(
        self,
        tracer: Tracer,
        carried: Mapping[str, tuple[Slot, Slot]],
        asked: Mapping[str, Slot],
        handed: Sequence[Slot] = (),
        *,
        places: Mapping[int, int],
    ) -> None:
        self.carried = dict(carried)
        self.asked = dict(asked)
        self.handed = list(handed)
        self._arrays = tracer.arrays  # let go of when the text is there
        self._starts = {start for start, _ in self.carried.values()}
        outside = {s: (places[id(t)], whole) for s, (t, whole) in tracer.outside.items() if s not in self._starts}
        self._outside = set(outside)  # slots that a binding settles
        self._static = {s: a for s, a in tracer.constants.items() if s not in outside}
        self._own: set[Slot] = set()  # slots of memory that the plan keeps for results
        self._viewed: list[Step] = []  # views of what is bound
        self._same: dict[Slot, Slot] = {}  # slots that are others' memory, whole, as another dtype
        self._places: list[tuple[int, int]] = []  # (first line, step of the program), in order of lines
        self._names: dict[str, Any] = {}
        self._constants: dict[int, str] = {}
        self._lines: list[str] = []
        self._bound: dict[str, str] = {}  # what a binding makes besides views: tiles of what is bound
        self.steps = self._kept(tracer.steps)
        self._fold()
        self._elide()
        self._allocate()
        self._outer = sorted((slot, *outside[slot]) for slot in outside)
        self._bind = self._build()
        self.nbytes = self._held()
        del self._arrays, self._names, self._constants, self._lines, self._bound, self._viewed, self.steps
        self._static = {}

    # ------------------------------------------------ which calls, and where their results go

    def _wanted(self) -> set[Slot]:
        """Slots whose arrays somebody wants after a round."""
        return {end for _, end in self.carried.values()} | set(self.asked.values()) | set(self.handed)

    def _kept(self, steps: Sequence[Step]) -> list[Step]:
        """The steps without those whose results nobody needs."""
        needed = self._wanted()
        kept = []
        for step in reversed(steps):
            if step.removable and not step.writes and needed.isdisjoint(step.outputs):
                continue
            alive = [i for i, slot in enumerate(step.outputs) if slot in needed]
            if len(alive) == 1 and alive[0] in step.alone:
                step.function, step.outputs, step.single = step.alone[alive[0]], [step.outputs[alive[0]]], True
            kept.append(step)
            needed.update(step.inputs)
        kept.reverse()
        return kept

    def _fold(self) -> None:
        """What is the same in all runs is computed here: the gradient that a sum hands back, and what becomes of it."""
        arrays = self._arrays
        produced: dict[Slot, int] = {}
        for step in self.steps:
            for slot in (*step.outputs, *step.writes):
                produced[slot] = produced.get(slot, 0) + 1
        wanted = self._wanted()
        kept = []
        for step in self.steps:
            slot = step.outputs[0] if len(step.outputs) == 1 else -1
            known = not step.writes and all(x in self._static for x in step.inputs) and produced.get(slot) == 1
            if not known or slot in wanted or not (step.view or (step.ufunc and step.function in _EXACT)):
                kept.append(step)
                continue
            given = [x.value if type(x) is Constant else self._static[x] for x in step.arguments]
            if not step.view:
                if not all(_uniform(x) for x in given if isinstance(x, np.ndarray)):
                    kept.append(step)
                    continue
                given = [x[(0,) * x.ndim][...] if isinstance(x, np.ndarray) else x for x in given]
            made = np.asarray(step.function(*given), arrays[slot].dtype)
            self._static[slot] = made if step.view else np.broadcast_to(made, arrays[slot].shape)
        self.steps = kept

    def _elide(self) -> None:
        """A copy is no copy where nobody else sees what is copied: the gradients of `autograd.grad`."""
        arrays = self._arrays
        uses: dict[Slot, int] = {}
        for step in self.steps:
            for x in (*step.inputs, *step.outputs):
                uses[x] = uses.get(x, 0) + 1
        other: dict[Slot, Slot] = {}
        wanted = self._wanted()
        kept = []
        for step in self.steps:
            step.arguments = _renamed(step.arguments, other)
            step.writes = tuple(other.get(x, x) for x in step.writes)
            if step.function is np.ndarray.copy:
                source, made = step.arguments[0], arrays[step.arguments[0]]
                known = source in self._static or source in self._outside or source in self._starts or source in wanted
                if uses[source] == 2 and not known and made.base is None and made.flags.c_contiguous:
                    other[step.outputs[0]] = source
                    continue
            kept.append(step)
        self.steps = kept
        self.carried = {name: (start, other.get(end, end)) for name, (start, end) in self.carried.items()}
        self.asked = {name: other.get(slot, slot) for name, slot in self.asked.items()}
        self.handed = [other.get(slot, slot) for slot in self.handed]

    def _allocate(self) -> None:
        """Memory of ufuncs' results and views of what stays in place are settled once."""
        arrays = self._arrays
        # Slots whose memory is another one in every round.
        moving = {end for _, end in self.carried.values()} | set(self.handed)
        for step in self.steps:
            if not (step.ufunc or step.lines):
                moving.update(step.outputs)
        remaining = []
        for step in self.steps:
            if (step.ufunc or step.lines) and not step.writes and step.outputs[0] not in moving:
                if not self._settled(step.outputs[0]):
                    self._static[step.outputs[0]] = arrays[step.outputs[0]]
                    self._own.add(step.outputs[0])
            elif step.view and all(map(self._settled, step.inputs)):
                if self._outside.isdisjoint(step.inputs):
                    made, of = step.outputs[0], step.inputs[0]
                    self._static[made] = arrays[made]
                    if _place(arrays[made]) == _place(arrays[of]):
                        self._same[made] = self._same.get(of, of)
                else:
                    self._outside.add(step.outputs[0])
                    self._viewed.append(step)
                continue
            remaining.append(step)
        self.steps = remaining

    def _settled(self, slot: Slot) -> bool:
        """Whether a slot's array is the same in all rounds of a run."""
        return slot in self._static or slot in self._outside

    # ------------------------------------------------ source text

    def _build(self) -> Any:
        starts = [start for start, _ in self.carried.values()]
        ends = [end for _, end in self.carried.values()]
        parameters = "".join(f", v{s}" for s in starts)
        lines = self._lines
        body = self._body()
        views = [f"x{step.outputs[0]} = {self._text(step)}" for step in self._viewed]
        lines.append(f"def make({', '.join(self._names)}):")
        lines.append(f" def bind({', '.join(f'x{slot}' for slot, _, _ in self._outer)}):")
        lines += [f"  {text}" for text in views]
        lines += [f"  {name} = {text}" for name, text in self._bound.items()]
        lines.append(f"  def run(rounds{parameters}):")
        lines.append("   for i in range(rounds):")
        for place, text in body:
            self._places.append((len(lines) + 1, place))
            lines.append(f"    {text}")
        if starts:
            left = "".join(f"v{s}, " for s in starts)
            lines.append(f"    {left}= {''.join(self._named(e) + ', ' for e in ends)}")
        if not body and not starts:
            lines.append("    pass")
        wanted = [f"v{s}" for s in starts] + [self._named(slot) for slot in (*self.asked.values(), *self.handed)]
        lines.append(f"   return ({''.join(name + ', ' for name in wanted)})")
        lines.append("  return run")
        lines.append(" return bind")
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
        for slot in self._wanted():
            self._named(slot)
        return body

    def _call(self, step: Step) -> list[tuple[int, str]]:
        lines = []
        if step.k is not None:
            lines.append((step.place, f"{self._constant(step.k)}.spec = {self._constant(step.spec)}"))
        function = self._constant(step.function)
        if step.ufunc:
            arguments = [self._operand(step, x) for x in step.arguments]
            slot = step.outputs[0]
            text = f"{function}({', '.join(arguments)}"
            if self._settled(slot) or step.writes or slot in step.inputs:
                keyword = "out=" if step.function in _OUT_BY_NAME else ""
                lines.append((step.place, f"{text}, {keyword}{self._named(slot)})"))
            else:
                lines.append((step.place, f"v{slot} = {self._constant(np.asarray)}({text}))"))
            return lines
        if step.lines:
            slot = step.outputs[0]
            if not (self._settled(slot) or step.writes):
                array = self._arrays[slot]
                form = f"{self._constant(array.shape)}, {self._constant(array.dtype)}"
                lines.append((step.place, f"v{slot} = {self._constant(np.empty)}({form})"))
            lines.append((step.place, f"{function}({', '.join(map(self._line, (*step.arguments, slot)))})"))
            return lines
        text = self._text(step)
        targets = [f"v{slot}" if slot >= 0 else "_" for slot in step.outputs]
        if any(slot >= 0 for slot in step.outputs):
            text = f"{targets[0] if step.single else ', '.join(targets) + ','} = {text}"
        lines.append((step.place, text))
        return lines

    def _text(self, step: Step) -> str:
        return f"{self._constant(step.function)}({', '.join(map(self._argument, step.arguments))})"

    def _argument(self, x: Any) -> str:
        if type(x) is list:
            return f"[{', '.join(map(self._argument, x))}]"
        return self._constant(x.value) if type(x) is Constant else self._named(x)

    def _named(self, slot: Slot) -> str:
        if slot in self._static:
            self._names[f"x{slot}"] = self._static[slot]
        return f"x{slot}" if self._settled(slot) else f"v{slot}"

    def _operand(self, step: Step, x: Any) -> str:
        """An argument of a ufunc; a number among floats as the array that NumPy would make of it at each call."""
        name = step.function.__name__ if isinstance(step.function, np.ufunc) else ""
        if type(x) is not Constant or type(x.value) not in (int, float) or name not in _PLAIN:
            return self._argument(x)
        dtypes = {self._arrays[slot].dtype for slot in step.inputs}
        d = dtypes.pop() if len(dtypes) == 1 else None
        if d is None or d.char not in "fd" or (type(x.value) is int and abs(x.value) >= 1 << 24):
            return self._argument(x)
        return self._constant(np.asarray(x.value, d))

    def _line(self, slot: Slot) -> str:
        """The name of a slot's array as a line of elements."""
        name = self._named(slot)
        if slot in self._static:
            self._names[f"l{slot}"] = np.ascontiguousarray(self._static[slot]).reshape(-1)
        elif self._settled(slot):
            self._bound[f"l{slot}"] = f"{self._constant(_as_line)}({name})"
        else:
            return f"{self._constant(_as_line)}({name})"
        return f"l{slot}"

    def _constant(self, value: Any) -> str:
        name = self._constants.get(id(value))
        if name is None:
            name = self._constants[id(value)] = f"c{len(self._constants)}"
            self._names[name] = value
        return name

    # ------------------------------------------------ tiles

    def _tileable(self, at: int) -> list[Step]:
        """The steps from `at` on that go over the same large arrays, element by element."""
        arrays = self._arrays
        group: list[Step] = []
        shape = None
        for step in self.steps[at:]:
            if not step.lines and (
                not isinstance(step.function, np.ufunc) or not step.ufunc or step.function.signature is not None
            ):  # a product of matrices is not element by element
                break
            slots = [*step.inputs, *step.outputs]
            if not all(map(self._settled, slots)):
                break
            target = arrays[slots[-1]]
            if target.size < TILED_FROM or (shape is not None and target.shape != shape):
                break
            if not all(self._single(s) or _place(arrays[s])[1] == target.shape for s in slots):
                break
            if self._single(slots[-1]) or not all(self._single(s) or arrays[s].flags.c_contiguous for s in slots):
                break
            if self._crosses(group, step):
                break
            shape = target.shape
            group.append(step)
        return group

    def _crosses(self, group: Sequence[Step], step: Step) -> bool:
        """Whether a tile of this one would be another's of those before: memory that is shared, but not in step."""
        before = {slot for one in group for slot in (*one.inputs, *one.outputs)}
        written = {one.outputs[0] for one in group}
        target = step.outputs[0]
        pairs = [(target, slot) for slot in {*before, *step.inputs} if slot != target]
        pairs += [(w, slot) for w in written for slot in step.inputs if slot != w]
        arrays = self._arrays
        for one, other in pairs:
            a, b = arrays[one], arrays[other]
            if _place(a) != _place(b) and np.may_share_memory(a, b):
                return True
        return False

    def _single(self, slot: Slot) -> bool:
        """Whether a slot is one number for all elements."""
        array = self._static.get(slot)
        return not self._arrays[slot].shape or (array is not None and _uniform(array))

    def _tiled(self, group: Sequence[Step]) -> list[tuple[int, str]]:
        """One loop over tiles. What only this group sees is as large as one tile."""
        slots = list(dict.fromkeys(x for step in group for x in (*step.inputs, *step.outputs)))
        arrays = self._arrays
        size = max(arrays[slot].size for slot in slots)
        tiles = self._scratch(group)
        columns: list[Array | None] = []
        for slot in slots:
            if slot in tiles:
                columns.append(tiles[slot])
            elif slot in self._outside:
                columns.append(None)
            elif self._single(slot):
                columns.append(self._static[slot][(0,) * self._static[slot].ndim][...])
            else:
                columns.append(self._static[slot])
        # One number, where a compiled loop looks for as many as there are elements.
        whole = dict.fromkeys(x for step in group if step.lines for x in step.arguments if self._single(x))
        columns += [np.full(TILE, self._static[slot][(0,) * self._static[slot].ndim]) for slot in whole]
        names = [f"t{slot}" for slot in slots] + [f"l{slot}" for slot in whole]
        bound = [slot for slot in slots if slot in self._outside]
        rows_of = _Tiles(size, columns)
        if bound:
            rows = f"r{len(self._bound)}"
            self._bound[rows] = f"{self._constant(rows_of)}({', '.join(map(self._named, bound))})"
        else:
            rows = self._constant(rows_of())
        lines = [(group[0].place, f"for {', '.join(names)}, in {rows}:")]
        for step in group:
            arguments = [
                self._operand(step, x) if type(x) is Constant else f"l{x}" if step.lines and x in whole else f"t{x}"
                for x in step.arguments
            ]
            keyword = "out=" if step.function in _OUT_BY_NAME else ""
            arguments.append(f"{keyword}t{step.outputs[0]}")
            lines.append((step.place, f" {self._constant(step.function)}({', '.join(arguments)})"))
        return lines

    def _scratch(self, group: Sequence[Step]) -> dict[Slot, Array]:
        """Tiles for the slots that only this group sees; one takes the memory of another that is over."""
        seen = self._seen_outside(group)
        inner = {self._root(step.outputs[0]) for step in group if not step.writes}
        inner = {root for root in inner if root in self._own and root not in seen}
        last: dict[Slot, int] = {}
        for at, step in enumerate(group):
            for slot in (*step.inputs, *step.outputs):
                last[self._root(slot)] = at
        free: list[Array] = []
        tiles: dict[Slot, Array] = {}
        for at, step in enumerate(group):
            seen_here = {self._root(slot) for slot in (*step.inputs, *step.outputs)} & inner
            out = self._root(step.outputs[0])
            over = [root for root in seen_here if last[root] == at and root in tiles and root != out]
            if not step.lines:  # a result may go where an operand was, which slows compiled loops down
                free += [tiles[root] for root in over]
            if out in inner and out not in tiles:
                dtype = self._arrays[out].dtype
                # The latest, which is still in the nearest cache.
                spare = next((i for i in reversed(range(len(free))) if free[i].dtype == dtype), None)
                tiles[out] = np.empty(TILE, dtype) if spare is None else free.pop(spare)
                self._static[out] = tiles[out]
            if step.lines:
                free += [tiles[root] for root in over]
            if out in inner and last[out] == at:
                free.append(tiles[out])
            for slot in (*step.inputs, *step.outputs):
                root = self._root(slot)
                if root in tiles:
                    tiles[slot] = self._static[slot] = tiles[root].view(self._arrays[slot].dtype)
        return tiles

    def _root(self, slot: Slot) -> Slot:
        return self._same.get(slot, slot)

    def _seen_outside(self, group: Sequence[Step]) -> set[Slot]:
        """The slots, by the memory that they are, that something outside a group looks at."""
        inside = set(map(id, group))
        seen = set(self._wanted())
        for step in (*self.steps, *self._viewed):
            if id(step) not in inside:
                seen.update((*step.inputs, *step.outputs))
        # A view that was settled once may look into a result.
        bases = {id(a.base) for s, a in self._static.items() if a.base is not None and s not in self._same}
        seen |= {slot for slot, a in self._static.items() if id(a) in bases}
        return {self._root(slot) for slot in seen}

    # ------------------------------------------------ running

    def bind(self, tensors: Sequence[Tensor]) -> Any:
        """The function on the arrays of these tensors, which its own hold only as long as it is there itself."""
        return self._bind(*[tensors[i].storage.buf if whole else tensors[i].array for _, i, whole in self._outer])

    def run(
        self, bound: Any, rounds: int, carried: Sequence[Array] = ()
    ) -> tuple[list[Array], Sequence[Array], Sequence[Array]]:
        """Runs so many rounds: the carried arrays afterwards, those that were asked for, and those handed out."""
        found = bound(rounds, *carried)
        n, m = len(self.carried), len(self.carried) + len(self.asked)
        return list(found[:n]), found[n:m], found[m:]

    def place_of(self, traceback: TracebackType | None) -> tuple[int, int]:
        """Where an exception came up: the step of the program, and how many rounds of the run were over."""
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code.co_filename == _FILE and frame.f_code.co_name == "run":
                place = max((p for p in self._places if p[0] <= traceback.tb_lineno), default=(0, 0))[1]
                return place, frame.f_locals.get("i", 0)
            traceback = traceback.tb_next
        return 0, 0

    def _held(self) -> int:
        """Bytes of the memory that the plan keeps for results."""
        return sum({id(self._static[slot]): self._static[slot].nbytes for slot in self._own}.values())


class _Tiles:
    """Arrays of `size` elements as rows of tiles; None among them stands for one that is given later."""

    def __init__(self, size: int, columns: Sequence[Array | None]) -> None:
        self._bounds = [(start, min(start + TILE, size)) for start in range(0, size, TILE)]
        self._columns = [None if a is None else self._cut(a) for a in columns]

    def _cut(self, array: Array) -> list[Array]:
        if not array.shape:
            return [array] * len(self._bounds)
        flat = array.reshape(-1)
        if flat.size == TILE:  # memory that all tiles have in common
            return [flat[: stop - start] for start, stop in self._bounds]
        return [flat[start:stop] for start, stop in self._bounds]

    def __call__(self, *given: Array) -> list[tuple[Array, ...]]:
        rest = iter(given)
        return list(zip(*[self._cut(next(rest)) if c is None else c for c in self._columns], strict=True))


def _place(array: Array) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    """Where an array's elements lie."""
    at = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr
    return int(at), array.shape, array.strides, array.itemsize


def _uniform(array: Array) -> bool:
    """Whether all elements are one place in memory."""
    return array.size > 0 and not any(array.strides)


def _as_line(array: Array) -> Array:
    """The elements of an array in a line, which is the same memory."""
    if not array.flags.c_contiguous:
        raise ValueError("a compiled loop was given an array that is not contiguous")
    return array.reshape(-1)


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
