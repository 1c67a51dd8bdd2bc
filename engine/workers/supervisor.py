"""Starts, watches and restarts workers, and carries calls to the worker that has the session.

A worker that dies takes its sessions with it (the registry remembers why). What it was asked and had not answered
ends as Unavailable: `not-applied` where it had seen nothing of the call or the call only read, else
`outcome-unknown`. It is started again after a pause that doubles with every quick death in a row, up to half a
minute; after `FAILING` of them its state is "failing", which `ready` shows, and it goes on being tried.

States of a worker: starting, ready, restarting, failing, stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from engine.errors import (
    Bug,
    EngineError,
    Gone,
    Hint,
    Invalid,
    LimitExceeded,
    NoSuchDevice,
    NoSuchSession,
    OutOfMemory,
    Unavailable,
)
from engine.limits import Limits
from engine.workers.messages import PROTOCOL, BadMessage, CannotPack, Message, Timing, version
from engine.workers.registry import DEFAULT, Record, Registry
from engine.workers.transports import InlineTransport, NotSent, ProcessTransport, Transport

FAILING = 5
_HEALTHY = 30.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 30.0
_START_TIMEOUT = 60.0
_PATIENCE = 5.0  # how long a call waits for a worker that is coming up
_CANCELLABLE = ("run", "query")

log = logging.getLogger("curlgrad.supervisor")


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker to be: its devices, the CPU first; in a thread of this process, or in a process of its own.

    `practice`: its CUDA devices are simulated on the CPU.
    """

    name: str
    devices: tuple[str, ...]
    inline: bool = False
    practice: bool = False


def plan_workers(spec: str, gpus: Sequence[str] = ()) -> list[WorkerSpec]:
    """The workers of `--workers SPEC`: auto, inline, practice-cuda, or a list such as "cpu:2,cuda:0".

    `gpus`: the machine's, as "cuda:0". Raises Invalid for what is none of these.
    """
    if spec == "auto":
        found = [WorkerSpec(gpu.replace(":", "-"), ("cpu", gpu)) for gpu in gpus]
        return found or [WorkerSpec("cpu-0", ("cpu",))]
    if spec == "inline":
        return [WorkerSpec("inline", ("cpu", *gpus[:1]), inline=True)]
    if spec == "practice-cuda":
        return [WorkerSpec("practice-0", ("cpu", "cuda:0"), practice=True)]
    specs: list[WorkerSpec] = []
    for part in spec.split(","):
        kind, _, number = part.strip().partition(":")
        if kind not in ("cpu", "cuda") or not (number.isascii() and number.isdigit()) or len(number) > 4:
            raise Invalid(
                f"cannot read {part.strip()!r} in the workers {spec!r}: "
                'they are "auto", "inline", "practice-cuda", or a list such as "cpu:2,cuda:0"',
                param="workers",
            )
        if kind == "cpu":
            specs += [WorkerSpec(f"cpu-{i}", ("cpu",)) for i in range(int(number))]
        else:
            specs.append(WorkerSpec(f"cuda-{int(number)}", ("cpu", f"cuda:{int(number)}")))
    if not specs or len({one.name for one in specs}) < len(specs):
        raise Invalid(f"the workers {spec!r} are none, or name one twice", param="workers")
    return specs


@dataclasses.dataclass(slots=True)
class _Pending:
    future: asyncio.Future[tuple[Any, Timing]] | None  # None: nobody waits for this reply
    changes: bool
    record: Record | None = None
    opens: bool = False


class _Slot:
    """The place of one worker, in which incarnations follow each other."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec, self.name = spec, spec.name
        self.state = "starting"
        self.epoch = 0
        self.transport: Transport | None = None
        self.pending: dict[int, _Pending] = {}
        self.restarts = 0
        self.numbers: dict[str, Any] = {}  # what it last said of itself
        self.failures = 0  # deaths in a row that came soon after the start
        self.last_exit: str | None = None
        self.first: asyncio.Future[None] | None = None  # how the first start ended
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """The workers and the session map. Used in the thread of one event loop.

    `threads`: of the BLAS library in each worker process; by default the machine's cores, shared out.
    `factory`: the session class, "module:Class".
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        limits: Limits,
        *,
        threads: int | None = None,
        factory: str = "engine.session:Session",
    ) -> None:
        self.limits = limits
        self.registry = Registry(limits.max_sessions)
        self._factory = factory
        self._threads = threads or max(1, cores() // len(specs))
        self._slots = {spec.name: _Slot(spec) for spec in specs}
        share = dataclasses.replace(limits, server_bytes=limits.server_bytes // len(specs))
        self._worker_limits = share.to_data()
        self._epochs = count(1)
        self._ids = count(1)
        self._waiters: list[asyncio.Future[None]] = []
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------ the workers' lives

    async def start(self) -> None:
        """Returns when every worker has come up. Raises RuntimeError with the reason when one does not."""
        loop = self._loop = asyncio.get_running_loop()
        for slot in self._slots.values():
            slot.first = loop.create_future()
            slot.task = loop.create_task(self._keep(slot), name=f"worker {slot.name}")
        try:
            await asyncio.gather(*(slot.first for slot in self._slots.values() if slot.first is not None))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends the workers, which frees all sessions. Calls that are under way end as Unavailable."""
        self._closing = True
        for slot in self._slots.values():
            if slot.task is not None:
                slot.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await slot.task
            if slot.first is not None and slot.first.done() and not slot.first.cancelled():
                slot.first.exception()  # seen: otherwise asyncio reports it as forgotten
        await asyncio.gather(*(self._stop(slot) for slot in self._slots.values()))

    async def _stop(self, slot: _Slot) -> None:
        self._lost(slot, "the server is closing")
        slot.state = "stopped"
        if slot.transport is not None:
            await slot.transport.close()

    async def _keep(self, slot: _Slot) -> None:
        while True:
            began = time.monotonic()
            try:
                gone = await self._incarnate(slot)
                slot.state = "ready"
                began = time.monotonic()
                if slot.first is not None and not slot.first.done():
                    slot.first.set_result(None)
                self._wake()
                why = await gone
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the start tried again
                why = f"it did not start: {str(error) or type(error).__name__}"
            self._lost(slot, why)
            if slot.transport is not None:
                await slot.transport.close()
            slot.last_exit = why
            if slot.first is not None and not slot.first.done():
                slot.first.set_exception(RuntimeError(f"worker {slot.name}: {why}"))
                return
            slot.restarts += 1
            slot.failures = slot.failures + 1 if time.monotonic() - began < _HEALTHY else 1
            slot.state = "failing" if slot.failures >= FAILING else "restarting"
            pause = min(_FIRST_PAUSE * 2 ** (slot.failures - 1), _LONGEST_PAUSE)
            log.error("worker %s: %s; starting it again in %.2g s", slot.name, why, pause)
            await asyncio.sleep(pause)

    async def _incarnate(self, slot: _Slot) -> asyncio.Future[str]:
        """Starts the worker; returns, once it has answered, what will hold the reason of its end."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[str] = loop.create_future()
        slot.epoch = epoch = next(self._epochs)

        def on_lost(why: str) -> None:
            if slot.epoch == epoch and not gone.done():
                gone.set_result(why)
                self._lost(slot, why)

        def on_message(message: Message) -> None:
            if slot.epoch == epoch:
                self._replied(slot, message)

        spec = slot.spec
        if spec.inline:
            slot.transport = InlineTransport(spec.name, on_message, on_lost, factory=self._factory)
        else:
            slot.transport = ProcessTransport(
                spec.name, on_message, on_lost, factory=self._factory, threads=self._threads
            )
        number = next(self._ids)
        started: asyncio.Future[tuple[Any, Timing]] = loop.create_future()
        slot.pending[number] = _Pending(started, changes=False)
        await slot.transport.start(
            {
                "do": "start",
                "id": number,
                "protocol": PROTOCOL,
                "version": version(),
                "name": spec.name,
                "devices": list(spec.devices),
                "practice": spec.practice,
                "epoch": epoch,
                "limits": self._worker_limits,
            }
        )
        await asyncio.wait_for(started, _START_TIMEOUT)
        return gone

    def _lost(self, slot: _Slot, why: str) -> None:
        """The incarnation is no more: answers what waits for it, and moves its sessions to the lost."""
        if slot.state == "ready":
            slot.state = "restarting"
        unsent = slot.transport.unsent() if slot.transport is not None else set()
        pending, slot.pending = slot.pending, {}
        for number, call in pending.items():
            if call.opens and call.record is not None:
                self.registry.remove(call.record)
            if call.future is None or call.future.done():
                continue
            known = number in unsent or not call.changes
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
        self.registry.lose(slot.name, why, time.time())

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------ calls

    async def call(self, record: Record, message: Message, *, changes: bool) -> tuple[Any, Timing]:
        """Has the session's worker do `message`. A cancelled wait cancels the call, too.

        Raises what the worker raised; Unavailable when it dies first; LimitExceeded, OutOfMemory.
        """
        slot = self._slot(record)
        number, future = self._expect(slot, changes, record)
        message.update(id=number, session=record.id, sent=time.monotonic())
        try:
            async with record.order:
                if slot.transport is None or slot.epoch != record.epoch:
                    raise NotSent("its worker is gone")
                await slot.transport.send(message)
        except BaseException as error:
            _give_up(slot, number, future)
            raise _not_sent(error, slot) from error
        return await self._reply(slot, number, future, record, message["do"] in _CANCELLABLE)

    async def _reply(
        self, slot: _Slot, number: int, future: asyncio.Future[Any], record: Record | None, cancellable: bool
    ) -> tuple[Any, Timing]:
        try:
            return await future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if cancellable:
                self._post(slot, {"do": "cancel", "target": number})
            raise
        except NoSuchSession as error:
            if error.code != "moved":
                raise
            refused = record.refused if record is not None else None
            raise refused or NoSuchSession("the session was deleted", hint=Hint("list-sessions")) from None

    def _expect(
        self, slot: _Slot, changes: bool, record: Record | None = None, *, opens: bool = False
    ) -> tuple[int, asyncio.Future[tuple[Any, Timing]]]:
        number = next(self._ids)
        assert self._loop is not None, "start() comes first"
        future: asyncio.Future[tuple[Any, Timing]] = self._loop.create_future()
        slot.pending[number] = _Pending(future, changes, record, opens)
        return number, future

    def _post(self, slot: _Slot, message: Message) -> None:
        """Sends what nobody waits for; a worker that is gone needs it no more."""
        number = next(self._ids)
        slot.pending[number] = _Pending(None, changes=False)
        try:
            if slot.transport is not None:
                slot.transport.send_now({**message, "id": number})
        except NotSent:
            slot.pending.pop(number, None)

    def _replied(self, slot: _Slot, message: Message) -> None:
        number = message.get("id")
        call = slot.pending.pop(number, None) if type(number) is int else None
        if call is None:
            raise BadMessage(f"a reply to nothing: id={number!r}")
        if call.future is None or call.future.done():
            return
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
            log.exception("worker %s: a reply without what a reply has", slot.name)
            call.future.set_exception(Bug(f"a bug of the server: a reply without what a reply has ({problem!r})"))

    # ------------------------------------------------ sessions

    async def find(self, owner: str, ref: str | None) -> Record:
        """The owner's session of this id or name, `default` made on first use. Raises NoSuchSession, Gone, …"""
        record = self.registry.find(owner, ref or DEFAULT)
        if record is not None:
            return record
        slot = await self._place(None)
        # Looked up again: another call may have made it during the wait. From here on nothing waits.
        record = self.registry.find(owner, DEFAULT)
        if record is None:
            record, _ = self._open(slot, owner, DEFAULT, slot.spec.devices[0], None, "float32")
        return record

    async def open(
        self, owner: str, name: str | None, device: str | None, seed: int | None, default_dtype: str
    ) -> Record:
        """A new session on the least loaded worker that has the device."""
        self.registry.check(owner, name)
        slot = await self._place(device)
        where = slot.spec.devices[0] if device is None else _device_of(slot, device)
        assert where is not None
        record, opened = self._open(slot, owner, name, where, seed, default_dtype)
        await opened
        return record

    def _open(
        self, slot: _Slot, owner: str, name: str | None, device: str, seed: int | None, default_dtype: str
    ) -> tuple[Record, asyncio.Future[tuple[Any, Timing]]]:
        """Enters the session in the map and tells the worker; calls may follow at once, on the same wire."""
        record = self.registry.add(owner, name, slot.name, slot.epoch, device)
        number, opened = self._expect(slot, False, record, opens=True)
        message = {"do": "open", "id": number, "session": record.id, "owner": owner, "name": name, "device": device}
        opened.add_done_callback(lambda future: self._opened(record, future))
        try:
            assert slot.transport is not None
            slot.transport.send_now({**message, "seed": seed, "default_dtype": default_dtype})
        except Exception as error:
            _give_up(slot, number, opened)
            self.registry.remove(record)
            raise _not_sent(error, slot) from error
        return record, opened

    def _opened(self, record: Record, future: asyncio.Future[tuple[Any, Timing]]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, EngineError):
            record.refused = error
            self.registry.remove(record)

    async def close_session(self, owner: str, ref: str) -> None:
        """Frees all that the session holds, after the calls that came before. Raises NoSuchSession."""
        try:
            record = self.registry.find(owner, ref)
        except (Gone, NoSuchSession):
            if self.registry.forget(owner, ref):
                return
            raise
        if record is None:
            return
        # Out of the map first: whoever comes after this call finds it deleted.
        self.registry.remove(record)
        # A worker that dies first, or one that has lost it, has freed it all the same.
        with contextlib.suppress(Unavailable, NoSuchSession):
            await self.call(record, {"do": "close"}, changes=False)

    async def rename(self, record: Record, name: str | None) -> None:
        """Raises NameTaken, Invalid."""
        self.registry.rename(record, name)
        await self.call(record, {"do": "rename", "name": name}, changes=True)

    async def infos(self, records: Sequence[Record]) -> dict[str, dict[str, Any]]:
        """What the workers know of these sessions, by id; waits for no program. Lost ones are left out."""
        by_slot: dict[str, list[str]] = {}
        for record in records:
            by_slot.setdefault(record.worker, []).append(record.id)
        replies = await asyncio.gather(*(self._infos(self._slots[name], ids) for name, ids in by_slot.items()))
        return {key: info for reply in replies for key, info in reply.items() if info is not None}

    async def _infos(self, slot: _Slot, ids: list[str]) -> dict[str, dict[str, Any] | None]:
        number, future = self._expect(slot, False)
        try:
            if slot.transport is None:
                raise NotSent("its worker is gone")
            slot.transport.send_now({"do": "info", "id": number, "sessions": ids})
        except NotSent:
            _give_up(slot, number, future)
            return {}
        try:
            answer, _ = await future
        except Unavailable:
            return {}
        known: dict[str, dict[str, Any] | None] = answer["infos"]
        return known

    async def numbers(self, patience: float = 2.0) -> dict[str, dict[str, Any]]:
        """What each worker counts, by worker; of one that does not answer in time (a long step) what it said last."""
        slots = list(self._slots.values())
        await asyncio.gather(*(self._ask_numbers(slot, patience) for slot in slots))
        return {slot.name: slot.numbers for slot in slots}

    async def _ask_numbers(self, slot: _Slot, patience: float) -> None:
        slot.numbers = {**slot.numbers, "answered": False}
        if slot.transport is None or slot.state != "ready":
            return
        number, future = self._expect(slot, False)
        try:
            slot.transport.send_now({"do": "info", "id": number, "sessions": [], "numbers": True})
        except NotSent:
            _give_up(slot, number, future)
            return
        with contextlib.suppress(TimeoutError, EngineError):
            known, _ = await asyncio.wait_for(future, patience)
            slot.numbers = {**known["numbers"], "waiting": known["waiting"], "answered": True}

    def _slot(self, record: Record) -> _Slot:
        return self._slots[record.worker]

    async def _place(self, device: str | None) -> _Slot:
        """The ready worker with the fewest sessions that has the device; waits a little for one that comes up."""
        able = [slot for slot in self._slots.values() if device is None or _device_of(slot, device)]
        if not able:
            have = self.devices()
            raise NoSuchDevice(
                f"this server has no device {device!r}: it has {', '.join(have)}",
                hint=Hint("device-here", devices=have),
                param="device",
            )
        deadline = time.monotonic() + _PATIENCE
        while not (ready := [slot for slot in able if slot.state == "ready"]):
            left = deadline - time.monotonic()
            if left <= 0 or self._closing or all(slot.state == "failing" for slot in able):
                raise Unavailable(
                    f"no worker is up; nothing was done ({able[0].name}: {able[0].last_exit or able[0].state})",
                    code="not-applied",
                    hint=Hint("try-again"),
                )
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter, left)
        return min(ready, key=lambda slot: self.registry.count(slot.name))

    # ------------------------------------------------ what there is

    def ready(self) -> bool:
        """Whether a worker is up and none keeps dying."""
        states = [slot.state for slot in self._slots.values()]
        return "ready" in states and "failing" not in states and "stopped" not in states

    def devices(self) -> list[str]:
        """All workers' devices, the CPU first."""
        return sorted({device for slot in self._slots.values() for device in slot.spec.devices}, key=_device_order)

    def workers(self) -> list[dict[str, Any]]:
        """Each worker as `info` shows it."""
        return [
            {
                "name": slot.name,
                "devices": list(slot.spec.devices),
                "simulated": slot.spec.practice,
                "inline": slot.spec.inline,
                "state": slot.state,
                "pid": slot.transport.pid if slot.transport is not None and slot.state == "ready" else None,
                "epoch": slot.epoch,
                "sessions": self.registry.count(slot.name),
                "calls": len(slot.pending),
                "restarts": slot.restarts,
                "last_exit": slot.last_exit,
            }
            for slot in self._slots.values()
        ]


def _give_up(slot: _Slot, number: int, future: asyncio.Future[Any]) -> None:
    """A call that was not sent: nobody will look at its future."""
    slot.pending.pop(number, None)
    if future.done() and not future.cancelled():
        future.exception()
    future.cancel()


def _not_sent(error: BaseException, slot: _Slot) -> BaseException:
    if isinstance(error, NotSent):
        return Unavailable(
            f"worker {slot.name} cannot be asked now ({error}); nothing was done",
            code="not-applied",
            hint=Hint("try-again"),
            worker=slot.name,
        )
    if isinstance(error, CannotPack):
        return LimitExceeded(f"the request cannot be carried: {error}", code="nesting")
    if isinstance(error, MemoryError):
        return OutOfMemory(f"no memory to carry the request: {error}")
    return error


def _device_of(slot: _Slot, device: str) -> str | None:
    """The slot's device that is meant by "cuda" or "cuda:1"; None where it has none such."""
    if device in slot.spec.devices:
        return device
    kinds = [own for own in slot.spec.devices if own.partition(":")[0] == device]
    return kinds[0] if kinds else None


def _device_order(device: str) -> tuple[bool, str, int]:
    kind, _, number = device.partition(":")
    return device != "cpu", kind, int(number or 0)


def cores() -> int:
    """How many cores this process may use, by affinity and by the quota of its control group; at least 1."""
    found = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            found = min(found, -(-int(quota) // int(period)))
    return max(1, found)
