"""What operations need to know of the session that runs them: generator, defaults, limits, undo log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any
from weakref import WeakSet, ref

import numpy as np

from engine.backend import Backend, find
from engine.carriers import K
from engine.dtypes import DType, float32
from engine.errors import EngineError, Hint, OutOfMemory, OutOfTime
from engine.tensor import Ledger, Tensor
from engine.undo import Undo

# ---------------------------------------------------------------- context


class _Kernels(dict[Backend, K]):
    """The kernel contexts of a session, one per device, made when first asked for."""

    def __init__(self, ctx: Context) -> None:
        super().__init__()
        self._ctx = ref(ctx)

    def __missing__(self, backend: Backend) -> K:
        ctx = self._ctx()
        assert ctx is not None, "it holds this"
        made = self[backend] = K(backend, ctx)
        return made


# (the tape's sequence number before it, path, rounds, operation) of a step that wrote to the tape.
Trace = tuple[int, list[int], list[int], str]
# (steps run, steps in all, rounds of the repeats under way, how many each has) of a program.
Progress = tuple[int, int, list[int], list[int]]
TRAIL = 100_000  # steps that are remembered, the newest


class Context:
    """What operations need to know of the session that runs them."""

    uid = 1  # for the undo log: it was always there

    def __init__(
        self,
        *,
        ledger: Ledger,
        rng: Any = None,
        default_dtype: DType = float32,
        device: str = "cpu",
        devices: Sequence[str] = ("cpu",),
        offered: Sequence[str] | None = None,
        sync: bool = False,
    ) -> None:
        """`devices`: those of this process; `offered`: the server's. `sync`: wait for the device after every step."""
        self.ledger = ledger
        self.rng = rng
        self.default_dtype = default_dtype
        self.devices = tuple(devices)
        self.offered = tuple(offered or devices)
        self.sync = sync
        self.default_backend = self.find(device)
        self.print_options: dict[str, Any] = {}  # what engine.printing.PrintOptions takes, where it is not the default
        self.grad_enabled = True
        self.plan_from = 0  # rounds from which a repeat is planned; 0: never
        self.plans: Any = None  # those that the worker keeps (engine.replays.Plans)
        self.anomaly = False  # whether backward looks for NaN, and says which step made the node that gave it
        self.trail: deque[Trace] = deque(maxlen=TRAIL)  # of the running program, while `anomaly`
        self.max_seconds = 0.0  # of a program; 0: no limit
        self.deadline = inf  # of the running program's turn, by time.perf_counter
        self.op_times: dict[str, float] | None = None  # seconds by operation, where they are asked for
        self.borrows = False  # whether storages of this session may stand on memory of others
        self.retained: WeakSet[Tensor] | None = None  # those that are no leaves and retain their gradients
        self.seq = 0
        self.undo = Undo(0)
        self.outcome: Any = None  # of the running program, so far (engine.scope.Outcome)
        self.ran: Progress | None = None  # how far the last program came
        self.session: Any = None  # the session whose context this is, for operations on its names
        self.ks = _Kernels(self)

    def close(self) -> None:
        """Lets go of what holds the context in turn, so that it is freed without the garbage collector."""
        self.session = None
        for k in self.ks.values():
            vars(k.raw).clear()
        self.ks.clear()

    def k(self, backend: Backend) -> K:
        return self.ks[backend]

    def find(self, device: str) -> Backend:
        """The backend of a device of this process. Raises NoSuchDevice."""
        return find(device, self.devices, self.offered)

    @property
    def backends(self) -> list[Backend]:
        """All devices of this process."""
        return [self.find(name) for name in self.devices]

    def synchronize(self) -> None:
        """Waits until the devices have computed all that was asked of them."""
        for backend in self.ks:
            backend.synchronize()

    def fault(self, problem: BaseException) -> EngineError | None:
        """What an exception of a device's library means; None where it is of none, or a bug of ours."""
        for backend in self.ks:
            found = backend.fault(problem)
            if found is not None:
                return found
        return None

    def touch_rng(self) -> Any:
        self.undo.generator(self.rng)
        return self.rng

    def retain(self, t: Tensor) -> None:
        """Remembers a tensor that is no leaf and is to get its gradient all the same."""
        if self.retained is None:
            self.retained = WeakSet()
        t.retains = True
        self.retained.add(t)

    def made_by(self, seq: int) -> Trace | None:
        """The step of the running program that wrote a node; None for one of a program before it."""
        for trace in reversed(self.trail):
            if trace[0] < seq:
                return trace if seq >= self.undo.start_seq else None
        return None

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def admit_view(self, nbytes: int) -> None:
        """Refuses a view that repeats its memory into more than `VIEW_FACTOR` times what the session may hold."""
        limit = self.ledger.limit * VIEW_FACTOR
        if nbytes > limit:
            raise OutOfMemory(
                f"this view would stand for {nbytes} bytes, more than the {limit} that a view may in this session",
                hint=Hint("free-memory", whose="session"),
                asked=nbytes,
                limit=limit,
                held=0,
                free=limit,
            )

    def admit(self, nbytes: int) -> None:
        """Refuses what would not fit, before it is allocated."""
        ledger = self.ledger
        held = ledger.held + self.undo.bytes_held
        if held + nbytes > ledger.limit:
            raise over_memory("session", nbytes, ledger.limit, held, self.holders())
        parent = ledger.parent
        if nbytes > SMALL and parent is not None:
            if parent.held + nbytes > parent.limit:
                if self.plans is not None:
                    self.plans.clear()
                parent.reclaim(parent.held + nbytes - parent.limit)
            if parent.held + nbytes > parent.limit:
                raise over_memory("server", nbytes, parent.limit, parent.held, self.holders())
            owned = parent.owner_limit
            if owned is not None and (held := parent.held_by(ledger.owner)) + nbytes > owned:
                raise over_memory("owner", nbytes, owned, held, self.holders())

    def holders(self) -> list[tuple[str, int, str]]:
        """What holds most of this session's memory: what it is, its bytes, and what to delete."""
        return [] if self.session is None else self.session.holders()


def out_of_time(limit: float) -> OutOfTime:
    """The error of a program that ran longer than it may."""
    return OutOfTime(
        f"the program ran past its limit of {limit:g} s; the session is as it was before",
        hint=Hint("time-limit", limit=f"{limit:g}"),
        limit=limit,
    )


# A view may say more elements than there is memory (expand), but whatever reads it works through all of them.
VIEW_FACTOR = 4


def over_memory(
    whose: str, asked: int, limit: int, held: int, holders: Sequence[tuple[str, int, str]] = ()
) -> OutOfMemory:
    """The error of asking for more than is free: what was asked, allowed, held and free, in bytes, and by what.

    `holders`: what holds most of the caller's own memory, its bytes, and what to delete.
    """
    return OutOfMemory(
        f"this needs {asked} bytes, but of the {whose}'s {limit} bytes {held} are held and {max(limit - held, 0)} free",
        hint=memory_hint(whose, holders),
        asked=asked,
        limit=limit,
        held=held,
        free=max(limit - held, 0),
    )


def memory_hint(whose: str, holders: Sequence[tuple[str, int, str]]) -> Hint:
    """What to free: the biggest there is, by name, where anything is held."""
    if not holders:
        return Hint("free-memory", whose=whose)
    told = [f"{what} ({size} bytes)" for what, size, _ in holders]
    return Hint("free-biggest", whose=whose, holders=told, first=holders[0][2])


# Results of fewer bytes are not asked about one by one on the fast paths; the ledger counts them all the same.
SMALL = 1 << 20


class _Here:
    """The context of the operations that run now."""

    __slots__ = ("ctx",)

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx


HERE = _Here(Context(ledger=Ledger(1 << 62)))


def current() -> Context:
    """The context of the operations that run now."""
    return HERE.ctx


class active:  # noqa: N801  a context manager, and a class because that is entered in half the time
    """Operations inside run for this context. One thread at a time runs engine code in a process."""

    __slots__ = ("before", "ctx", "errors")

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def __enter__(self) -> Context:
        self.before = HERE.ctx
        self.errors = np.errstate(all="ignore")
        self.errors.__enter__()
        HERE.ctx = self.ctx
        return self.ctx

    def __exit__(self, *failure: object) -> None:
        HERE.ctx = self.before
        self.errors.__exit__(None, None, None)


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    """torch.no_grad and torch.enable_grad."""
    ctx = HERE.ctx
    before = ctx.grad_enabled
    ctx.grad_enabled = enabled
    try:
        yield
    finally:
        ctx.grad_enabled = before
