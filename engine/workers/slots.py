"""What the supervisor keeps of each worker: its incarnation, and the calls that it has not answered."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from engine.durability.store import DataDir
from engine.errors import Bug, EngineError, Hint, LimitExceeded, OutOfMemory, Unavailable
from engine.workers.messages import CannotPack, Message, NotSent, Timing
from engine.workers.plans import WorkerSpec
from engine.workers.registry import Record
from engine.workers.transports import Transport

log = logging.getLogger("curlgrad.supervisor")


class Told(ABC):
    """Who is told of a call's end at once, and does not wait for it in a task: a future as far as a call needs one."""

    __slots__ = ()

    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is to be told any more."""

    @abstractmethod
    def set_result(self, result: tuple[Any, Timing], /) -> None:
        """The worker's answer. Raises nothing."""

    @abstractmethod
    def set_exception(self, exception: BaseException, /) -> None:
        """Why there is none. Raises nothing."""


@dataclasses.dataclass(slots=True)
class Pending:
    """A call that is under way."""

    future: asyncio.Future[tuple[Any, Timing]] | Told | None  # None: nobody waits for this reply
    changes: bool
    record: Record | None = None
    opens: bool = False
    number: int = 0
    message: Message | None = None  # kept where it may have to be sent again
    again: bool = False  # whether it was


class Slot:
    """The place of one worker, in which incarnations follow each other."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec, self.name = spec, spec.name
        self.state = "starting"
        self.epoch = 0
        self.transport: Transport | None = None
        self.pending: dict[int, Pending] = {}
        self.overdue = False  # whether the last one was killed for a step that did not end
        self.orphans: list[Pending] = []  # calls of an incarnation that died, until the next one knows of them
        self.restarts = 0
        self.numbers: dict[str, Any] = {}  # what it last said of itself
        self.failures = 0  # deaths in a row that came soon after the start
        self.last_exit: str | None = None
        self.first: asyncio.Future[None] | None = None  # how the first start ended
        self.task: asyncio.Task[None] | None = None

    def shown(self, sessions: int) -> dict[str, Any]:
        """The worker as `info` shows it."""
        return {
            "name": self.name,
            "devices": list(self.spec.devices),
            "simulated": self.spec.practice,
            "inline": self.spec.inline,
            "state": self.state,
            "pid": self.transport.pid if self.transport is not None and self.state == "ready" else None,
            "epoch": self.epoch,
            "sessions": sessions,
            "calls": len(self.pending),
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }


class Waiters:
    """Those who wait until a worker comes up."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self, seconds: float) -> None:
        """Waits for the next `wake`, so long at most."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiter, seconds)

    def wake(self) -> None:
        """Lets everyone go on."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def answered(call: Pending, name: str, message: Message) -> None:
    """Gives whoever waits what `name` replied."""
    assert call.future is not None
    try:
        if "error" in message:
            call.future.set_exception(EngineError.from_data(message["error"]))
        elif "lost" in message:
            call.future.set_exception(
                Unavailable(
                    "the server had no memory, or too many files open, to take the arrays of the answer",
                    code="outcome-unknown" if call.changes else "not-applied",
                    hint=Hint("try-again"),
                )
            )
        else:
            timing = Timing(float(message["queue_ms"]), float(message["run_ms"]))
            call.future.set_result((message["ok"], timing))
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        # Ours, not the wire's: it ends this call, and not the worker with everyone's sessions.
        log.exception("%s: a reply without what a reply has", name)
        call.future.set_exception(Bug(f"a bug of the server: a reply without what a reply has ({problem!r})"))


def end(call: Pending, slot: Slot, why: str, *, known: bool) -> None:
    """Tells whoever waits that the worker is gone; `known`: that nothing was done."""
    if call.future is None or call.future.done():
        return
    detail = "nothing was done" if known else "what was asked may or may not have been done"
    call.future.set_exception(
        Unavailable(
            f"worker {slot.name} is gone ({why}); {detail}",
            code="not-applied" if known else "outcome-unknown",
            hint=Hint("worker-lost", worker=slot.name),
            worker=slot.name,
            why=why,
        )
    )


def give_up(slot: Slot, number: int, future: asyncio.Future[Any]) -> None:
    """A call that was not sent: nobody will look at its future."""
    slot.pending.pop(number, None)
    if future.done() and not future.cancelled():
        future.exception()
    future.cancel()


def not_sent(error: BaseException, name: str) -> BaseException:
    """What the caller is told when a message to `name` could not be sent."""
    if isinstance(error, NotSent):
        return Unavailable(
            f"{name} cannot be asked now ({error}); nothing was done",
            code="not-applied",
            hint=Hint("try-again"),
            worker=name.removeprefix("worker "),
        )
    if isinstance(error, CannotPack):
        return LimitExceeded(f"the request cannot be carried: {error}", code="nesting")
    if isinstance(error, MemoryError):
        return OutOfMemory(f"no memory to carry the request: {error}")
    return error


def device_of(slot: Slot, device: str) -> str | None:
    """The slot's device that is meant by "cuda" or "cuda:1"; None where it has none such."""
    if device in slot.spec.devices:
        return device
    kinds = [own for own in slot.spec.devices if own.partition(":")[0] == device]
    return kinds[0] if kinds else None


def data_of(slot: Slot, names: Sequence[str], data: DataDir | None, sync: str) -> Message | None:
    """Where a worker keeps its sessions. The first of `names` takes over those of workers that are no more."""
    if data is None:
        return None
    adopt = [str(folder) for folder in data.folders() if folder.name not in names] if slot.name == names[0] else []
    return {"folder": str(data.path / slot.name), "adopt": adopt, "sync": sync}


def unknown_devices(slot: Slot) -> list[dict[str, Any]]:
    """What is known of the devices of a worker that does not answer."""
    return [
        {
            "name": name,
            "model": None,
            "simulated": slot.spec.practice and name != "cpu",
            "memory": None,
            "worker": slot.name,
        }
        for name in slot.spec.devices
    ]
