"""Plans that are kept from one request to the next, and what tells whether one fits.

A worker keeps the programs that it has seen more than once, compiled, and with each of them its plans: of every repeat,
and of the program as a whole. A plan fits where all is as it was when it was made, but for values: the `Guard` of a
program's names says so anew whenever a plan is to run. What is kept is bounded in programs and bytes; those longest
unused go first.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.answer import ArrayData
from engine.compile import Plan
from engine.errors import EngineError
from engine.limits import Limits
from engine.scope import ABSENT, Scope
from engine.steps import Program, Repeat, compile_program
from engine.tensor import Ledger, ServerLedger, Tensor

ENTRIES = 1000  # programs that are kept
SEEN = 8192  # places for programs of which only that they were there is known
LONGEST = 64 << 10  # bytes of a program's text: a longer one is not kept
FORMS = 8  # plans of one repeat or program, for inputs of other shapes
PLAN_BYTES = 16 << 10  # what a plan takes beside its memory for results, about
PASSES_FROM = 3  # a program without rounds has a plan from the time on that it comes for the third time
REPEATS_FROM = 2

# ---------------------------------------------------------------- guards

Reads = Sequence[tuple[str, bool]]  # a name, and whether it is read as the state of an optimizer
_SCALARS = (bool, int, float, complex, str)


def guard(scope: Scope, reads: Reads) -> tuple[list[Tensor], Any]:
    """The tensors that names stand for, and all of them that a plan depends on: everything but values.

    Two guards that are equal number the same tensors in the same way.
    """
    tensors: list[Tensor] = []
    numbers: dict[int, int] = {}
    form: list[Any] = []
    for name, is_state in reads:
        if not is_state:
            found = scope.look(name)
            form.append("absent" if found is ABSENT else _told(found, tensors, numbers))
            continue
        try:
            form.append(_told(scope.state(name, ""), tensors, numbers))
        except EngineError:
            form.append("absent")
    given = len(tensors)
    form += [None if t.grad is None else _told(t.grad, tensors, numbers) for t in tensors[:given]]
    storages: dict[int, int] = {}
    for t in tensors:
        storage, view, spec, array = t.storage, t.view, t.spec, t.array
        form.append((spec.shape, spec.dtype, t.requires_grad, t.edge is None, t.backend.name))
        form.append(storages.setdefault(id(storage), len(storages)))
        if view is not None or array is not storage.buf or not array.flags.c_contiguous:
            buf = storage.buf
            stale = view is not None and view.version != storage.version
            kind_of_view = None if view is None else (view.creation, stale, stale and _base_has_tape(t))
            form.append((t.strides, array.strides, t.offset, array is buf, buf.shape, buf.strides, buf.dtype.char))
            form.append(kind_of_view)
    ctx = scope.ctx
    retained = ctx.retained is not None and any(t.retains for t in ctx.retained)
    form.append((ctx.default_dtype, ctx.default_backend.name, ctx.grad_enabled, ctx.anomaly, retained, scope.strict))
    return tensors, tuple(form)


def _told(found: Any, tensors: list[Tensor], numbers: dict[int, int]) -> Any:
    kind = type(found)
    if kind is Tensor:
        n = numbers.get(id(found))
        if n is None:
            n = numbers[id(found)] = len(tensors)
            tensors.append(found)
        return n
    if kind is list or kind is tuple:
        return ("list", *[_told(x, tensors, numbers) for x in found])
    if kind is dict:
        return ("dict", *[(name, _told(x, tensors, numbers)) for name, x in found.items()])
    if found is None or kind in _SCALARS:
        return kind, repr(found)
    return ("other", object())  # equal to nothing


def _base_has_tape(t: Tensor) -> bool:
    view = t.view
    while view is not None:
        t, view = view.base, view.base.view
    return t.requires_grad


# ---------------------------------------------------------------- what is kept


class Kept:
    """The plans of one repeat, or of a whole program, by guard: each with what belongs to it, or why there is none."""

    __slots__ = ("found", "made", "ran", "reads")

    def __init__(self) -> None:
        self.reads: dict[tuple[str, bool], None] = {}
        self.found: OrderedDict[Any, tuple[Any, int]] = OrderedDict()  # with its bytes
        self.made = self.ran = 0

    @property
    def restless(self) -> bool:
        """Whether plans are made more often than they serve: the inputs are others each time."""
        return self.made > FORMS + self.ran // FORMS

    def find(self, scope: Scope) -> tuple[list[Tensor], Any]:
        """The tensors that the names stand for now, and what is kept for them; None where nothing is."""
        tensors, form = guard(scope, list(self.reads))
        found = self.found.get(form)
        if found is None:
            return tensors, None
        self.found.move_to_end(form)
        return tensors, found[0]

    def put(self, scope: Scope, reads: Reads, found: Any, nbytes: int) -> int:
        """Keeps what was found out for the names as they are now; by how many bytes more is kept then."""
        before = sum(size for _, size in self.found.values())
        if not self.reads.keys() >= set(reads):
            self.found.clear()  # guards of fewer names say less
            self.reads.update(dict.fromkeys(reads))
        self.found[guard(scope, list(self.reads))[1]] = found, nbytes
        self.made += 1
        while len(self.found) > FORMS:
            self.found.popitem(last=False)
        return sum(size for _, size in self.found.values()) - before


class Entry:
    """A program that was seen more than once. `seen` counts how often; `plans` are by the path of what they run."""

    __slots__ = ("held", "limits", "nbytes", "plans", "program", "seen")

    def __init__(self, program: Program, limits: Limits, nbytes: int) -> None:
        self.program, self.limits = program, limits
        self.seen, self.nbytes, self.held = 0, nbytes, True
        self.plans: dict[tuple[int, ...], Kept] = {}

    def kept(self, path: Sequence[int]) -> Kept:
        return self.plans.setdefault(tuple(path), Kept())


class Plans:
    """The programs and plans that a worker keeps, at most `limit` bytes of them; with 0, none."""

    def __init__(self, limit: int, server: ServerLedger | None = None) -> None:
        self.limit = limit
        self._server = server  # which holds the ledger only weakly
        self.ledger = Ledger(limit, server, "(plans)")
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        # The mark of the last program of each place. Numbers in one piece of memory: a small object for each program
        # would lie among what the program made, and hold a whole megabyte of it when all else there is freed.
        self._seen = array("q", bytes(8 * SEEN))
        self.made = self.replayed = self.unfit = self.dropped = 0
        self._pack = msgpack.Packer(default=_packed, unicode_errors="surrogatepass", buf_size=4096).pack

    def compiled(self, data: Any, limits: Limits, owner: str = "") -> Program:
        """`compile_program`, with what is known of a program that this owner has sent before.

        What others sent is not looked at: by how long an answer takes, or what it says of plans, nobody may find out
        which programs, and which numbers in them, somebody else has.
        """
        key = self._key(data, owner) if self.limit else None
        if key is None:
            return compile_program(data, limits)
        entry = self.entries.get(key)
        if entry is not None and (entry.limits is limits or entry.limits == limits):
            self.entries.move_to_end(key)
            entry.seen += 1
            known = entry.program
            program = compile_program(data, limits, known=(known.steps, known.total))
            program.entry = entry
            return program
        program = compile_program(data, limits)
        mark = hash(key)
        again = self._seen[mark % SEEN] == mark
        if again or any(isinstance(step, Repeat) for step in program.steps):
            kept = Program(steps=program.steps, total=program.total)
            program.entry = entry = Entry(kept, limits, 16 * len(key) + 1024)
            entry.seen = 1 + again
            self.entries[key] = entry
            self._count(entry.nbytes)
        else:
            self._seen[mark % SEEN] = mark
        return program

    def _key(self, data: Any, owner: str) -> bytes | None:
        """Whose a program is, and what it says but for its inputs and the names under which results are kept.

        None where that is long.
        """
        if type(data) is not dict:
            return None
        told = [owner, *(data.get(name) for name in ("steps", "return", "no_grad", "strict", "detect_anomaly"))]
        for name in ("keep", "keep_all"):
            kept = data.get(name)
            told.append(list(kept) if type(kept) is dict else None)
        try:
            key: bytes = self._pack(told)
        except (TypeError, ValueError, OverflowError):  # numbers of more than 64 bits, hundreds of levels
            self._pack = msgpack.Packer(default=_packed, unicode_errors="surrogatepass", buf_size=4096).pack
            return None
        return key if len(key) <= LONGEST else None

    def add(self, entry: Entry | None, kept: Kept, scope: Scope, reads: Reads, found: Any) -> bool:
        """Keeps a plan, or why there is none. False where it is too big, or its program is not kept."""
        nbytes = 1024
        plan = getattr(found, "plan", None)
        if isinstance(plan, Plan):
            self.made += 1
            nbytes = PLAN_BYTES + plan.nbytes
        if entry is None or not entry.held or nbytes > self.limit // 2:
            return False
        more = kept.put(scope, reads, found, nbytes)
        entry.nbytes += more
        self._count(more)
        return True

    def _count(self, nbytes: int) -> None:
        self.ledger.held += nbytes
        while self.entries and (self.ledger.held > self.limit or len(self.entries) > ENTRIES):
            _, entry = self.entries.popitem(last=False)
            entry.held = False
            self.ledger.held -= entry.nbytes
            self.dropped += 1

    def clear(self) -> None:
        """Lets go of all, where memory is short."""
        self.dropped += len(self.entries)
        for entry in self.entries.values():
            entry.held = False
        self.entries.clear()
        self.ledger.held = 0

    def to_data(self) -> dict[str, int]:
        return {
            "programs": len(self.entries),
            "bytes": self.ledger.held,
            "made": self.made,
            "replayed": self.replayed,
            "unfit": self.unfit,
            "dropped": self.dropped,
        }


def _packed(value: Any) -> Any:
    if type(value) is ArrayData and value.array.nbytes <= LONGEST:
        fields = (list(value.array.shape), value.array.dtype.str, value.array.tobytes(), value.dtype, value.inferred)
        return msgpack.ExtType(1, msgpack.packb(fields))
    raise TypeError(f"a program holds a {type(value).__name__}")


__all__ = ["PASSES_FROM", "REPEATS_FROM", "Entry", "Kept", "Plans", "Reads", "guard"]
