"""Starts, watches and restarts workers, and carries calls to the worker that has the session.

With a data directory the sessions of a worker that dies are there again with the next one, and so is the truth about
the calls that it had not answered:

    committed                       its answer, which the journal has
    ran when the worker died        503 `not-applied`; a program that did so twice is refused from then on
    of the same session             503 `not-applied`
    any other                       is run again, once

Without one a worker that dies takes its sessions with it (the registry remembers why). What it was asked and had not
answered ends as Unavailable: `not-applied` where it had seen nothing of the call or the call only read, else
`outcome-unknown`.

A worker that died is started again after a pause that doubles with every quick death in a row, up to half a minute;
after `FAILING` of them its state is "failing", which `ready` shows, and it goes on being tried.

States of a worker: starting, ready, restarting, failing, stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.durability.store import DataDir, data_bytes
from engine.errors import (
    EngineError,
    Gone,
    Hint,
    NoSuchDevice,
    NoSuchSession,
    OutOfMemory,
    Unavailable,
)
from engine.limits import Limits
from engine.workers import overdue, questions
from engine.workers.deadly import Deadly
from engine.workers.incoming import Incoming
from engine.workers.messages import PROTOCOL, BadMessage, CannotPack, Message, NotSent, Timing, version
from engine.workers.plans import WorkerSpec, cores, device_order, no_such_device
from engine.workers.registry import DEFAULT, Record, Registry
from engine.workers.settling import START_TIMEOUT, Settling
from engine.workers.slots import Pending, Slot, Told, Waiters, answered, data_of, device_of, end, give_up, not_sent
from engine.workers.transports import InlineTransport, ProcessTransport

if TYPE_CHECKING:
    from engine.workers.fronts import Fronts

FAILING = 5
_HEALTHY = 30.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 30.0
_PATIENCE = START_TIMEOUT  # of a call with a worker that is coming up, if that neither comes up nor keeps dying
_ANSWER_S = 5.0  # how long a worker has to say what devices it has
_READ_SPEED = 20 << 20  # bytes of a log a second that a start is given time for, at the least
_CANCELLABLE = ("run", "query")

log = logging.getLogger("curlgrad.supervisor")


class Supervisor:
    """The workers and the session map. Used in the thread of one event loop.

    `threads`: of the BLAS library in each worker process; by default the machine's cores, shared out.
    `factory`: the session class, "module:Class". `sync`: when the disk is told (engine.durability.log). `cache`: where
    compiled kernels are kept. `sync_steps`: wait for the device after every step of a program.
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        limits: Limits,
        *,
        threads: int | None = None,
        factory: str = "engine.session:Session",
        sync: str = "everysec",
        cache: str | None = None,
        sync_steps: bool = False,
    ) -> None:
        self.limits = limits
        self._cache, self._sync_steps = cache, sync_steps
        self.data: DataDir | None = None  # set before `start` where sessions are to outlive their workers
        self._sync = sync
        self._nonce = secrets.token_hex(8)
        self._deadly = Deadly()
        self.registry = Registry(limits.max_sessions)
        self._factory = factory
        self._threads = threads or max(1, cores() // len(specs))
        if cores() < 2:
            limits.busy_poll_s = 0.0  # who looks would keep whom it looks for from its only core
        self._slots = {spec.name: Slot(spec) for spec in specs}
        share = dataclasses.replace(limits, server_bytes=limits.server_bytes // len(specs))
        self._worker_limits = share.to_data()
        self._epochs = count(1)
        self._ids = count(1)
        self._waiters = Waiters()
        self._settling = Settling(
            self.registry, limits, expect=self._expect, number=self._ids.__next__, killed=self._killed
        )
        self.fronts: Fronts | None = None  # set before `start` where other processes are to reach the workers
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

    async def _stop(self, slot: Slot) -> None:
        self._lost(slot, "the server is closing")
        slot.state = "stopped"
        self._waiters.wake()
        if slot.transport is not None:
            await slot.transport.close()

    async def _keep(self, slot: Slot) -> None:
        while True:
            began = time.monotonic()
            try:
                gone, inventory = await self._incarnate(slot)
                if self.data is not None:
                    await self._settling.settle(slot, inventory)
                slot.state, began = "ready", time.monotonic()
                if slot.first is not None and not slot.first.done():
                    slot.first.set_result(None)
                self._waiters.wake()
                if self.fronts is not None:
                    self.fronts.attach(slot)
                kept, shared = self.data is not None, self.fronts is not None
                why = await overdue.ended(slot, gone, self._expect, self.limits, kept=kept, shared=shared)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the start tried again
                why = f"it did not start: {str(error) or type(error).__name__}"
            self._lost(slot, why)
            slot.last_exit = why
            if self.fronts is not None:
                await self.fronts.hand_over(slot)
            if slot.failures >= FAILING or self._closing:
                self._abandon(slot, why)
            if slot.transport is not None:
                await slot.transport.close()
            if slot.first is not None and not slot.first.done():
                slot.first.set_exception(RuntimeError(f"worker {slot.name}: {why}"))
                return
            slot.restarts += 1
            slot.failures = slot.failures + 1 if time.monotonic() - began < _HEALTHY else 1
            if slot.overdue:  # a caller's doing, and no sign that the next one fares as badly
                slot.failures = 1
            slot.state = "failing" if slot.failures >= FAILING else "restarting"
            self._waiters.wake()  # a call that waits for it need not, once it keeps dying
            pause = min(_FIRST_PAUSE * 2 ** (slot.failures - 1), _LONGEST_PAUSE)
            log.error("worker %s: %s; starting it again in %.2g s", slot.name, why, pause)
            await asyncio.sleep(pause)

    async def _incarnate(self, slot: Slot) -> tuple[asyncio.Future[str], Message]:
        """Starts the worker; returns, once it has answered, what will hold the reason of its end, and its answer."""
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
                spec.name,
                on_message,
                on_lost,
                factory=self._factory,
                threads=self._threads,
                shared=self.fronts is not None,
                busy_poll_s=self.limits.busy_poll_s,
            )
        number = next(self._ids)
        started: asyncio.Future[tuple[Any, Timing]] = loop.create_future()
        slot.pending[number] = Pending(started, changes=False)
        await slot.transport.start(
            {
                "do": "start",
                "id": number,
                "protocol": PROTOCOL,
                "version": version(),
                "name": spec.name,
                "devices": list(spec.devices),
                "practice": spec.practice,
                "offered": self.devices(),
                "cache": self._cache,
                "sync_steps": self._sync_steps,
                "epoch": epoch,
                "overdue": slot.overdue,
                "limits": self._worker_limits,
                "data": (data := data_of(slot, list(self._slots), self.data, self._sync)),
            }
        )
        patience = START_TIMEOUT
        if data:
            patience += data_bytes([Path(data["folder"]), *map(Path, data["adopt"])]) / _READ_SPEED
        answer, _ = await asyncio.wait_for(started, patience)
        return gone, answer

    def _lost(self, slot: Slot, why: str) -> None:
        """The incarnation is no more. Without a data directory its sessions are lost; with one its calls wait for the
        next incarnation, which knows what became of them."""
        if slot.state == "ready":
            slot.state = "restarting"
        unsent = slot.transport.unsent() if slot.transport is not None else set()
        pending, slot.pending = slot.pending, {}
        durable = self.data is not None and not self._closing
        for number, call in pending.items():
            if durable and call.message is not None:
                call.again = call.again and number not in unsent
                slot.orphans.append(call)
                continue
            if call.opens and call.record is not None:
                self.registry.remove(call.record)
            end(call, slot, why, known=number in unsent or not call.changes)
        if self._closing:
            self._abandon(slot, why)
        elif not durable:
            self.registry.lose(slot.name, why, time.time())

    def _abandon(self, slot: Slot, why: str) -> None:
        """The worker does not come up again soon: what waited for it is told so."""
        orphans, slot.orphans = slot.orphans, []
        for call in orphans:
            end(call, slot, why, known=not call.changes)

    # ------------------------------------------------ after a death

    def _killed(self, message: Message) -> None:
        """This program ran when its worker died."""
        self._deadly.killed(message)
        if self.fronts is not None:
            self.fronts.warn(self._deadly.known)

    async def _up(self, slot: Slot) -> None:
        """Waits a little for a worker that is being started again."""
        deadline = time.monotonic() + _PATIENCE
        while slot.state == "restarting" and not self._closing and (left := deadline - time.monotonic()) > 0:
            await self._waiters.wait(left)

    def adopt(self, name: str, message: Message, *, changes: bool, unsent: bool, lost: bool) -> Pending:
        """Takes over a call that a front had under way on a worker which is gone. `unsent`: the worker has seen nothing
        of it; `lost`: it cannot be sent again, its arrays being lost."""
        slot = self._slots[name]
        future: asyncio.Future[tuple[Any, Timing]] = asyncio.get_running_loop().create_future()
        call = Pending(future, changes, self.registry.on(name, message["session"]), message=message, again=lost)
        if self.data is not None and not self._closing and call.record is not None:
            slot.orphans.append(call)
        else:
            end(call, slot, slot.last_exit or "the server is closing", known=unsent or not changes)
        return call

    # ------------------------------------------------ calls

    async def call(
        self, record: Record, message: Message, *, changes: bool, before: Callable[[Slot], None] | None = None
    ) -> tuple[Any, Timing]:
        """Has the session's worker do `message`. A cancelled wait cancels the call, too. `before` is told which worker
        it is, before that is asked.

        A session that asks for a device which its worker lacks moves to a worker that has it, if it is empty still.
        Raises what the worker raised; Unavailable when it dies first; LimitExceeded, OutOfMemory.
        """
        again = dict(message)
        try:
            return await self._call(record, message, changes, before)
        except NoSuchDevice as error:
            if not await self.moved(record, error.facts.get("device")):
                raise
        return await self._call(record, again, changes, before)

    async def _call(
        self, record: Record, message: Message, changes: bool, before: Callable[[Slot], None] | None
    ) -> tuple[Any, Timing]:
        known_as = self._deadly.admit(message)
        async with record.order:
            # Looked up now: the session may have moved while this call waited.
            slot = self._slots[record.worker]
            if self.data is not None:
                await self._up(slot)
            if before is not None:
                before(slot)
            number, future = self._expect(slot, changes, record)
            call = slot.pending[number]
            message.update(id=number, session=record.id, sent=time.monotonic(), call=f"{self._nonce}-{number}")
            if self.data is not None:
                call.message = message
            try:
                if slot.transport is None or slot.epoch != record.epoch:
                    raise NotSent("its worker is gone")
                await slot.transport.send(message, alone=self._is_alone())
            except BaseException as error:
                give_up(slot, number, future)
                raise not_sent(error, f"worker {slot.name}") from error
        answer = await self._reply(slot, call, future, record, message)
        self._deadly.survived(known_as)
        return answer

    def start_call(self, owner: str, ref: str | None, message: Message, told: Told, *, changes: bool) -> Pending | None:
        """As `call`, without a wait: sends the message, and `told` hears of its end. None, and nothing is done, where
        something has to be waited for or is not as usual: that is for `call`, which `told` may turn to as well where
        the worker says that it has no such session or device."""
        record = self.registry.present(owner, ref or DEFAULT)
        if record is None or self._deadly.any or record.order.locked():
            return None
        slot = self._slots[record.worker]
        if slot.state != "ready" or slot.transport is None or slot.epoch != record.epoch:
            return None
        number = next(self._ids)
        message.update(id=number, session=record.id, sent=time.monotonic(), call=f"{self._nonce}-{number}")
        call = slot.pending[number] = Pending(told, changes, record, False, number)
        if self.data is not None:
            call.message = message
        try:
            slot.transport.send_soon(message, alone=self._is_alone())
        except (NotSent, CannotPack, MemoryError):
            del slot.pending[number]
            return None
        return call

    def _is_alone(self) -> bool:
        """Whether the call that is being sent is the only one under way."""
        return sum([len(slot.pending) for slot in self._slots.values()]) == 1

    def withdraw(self, call: Pending) -> None:
        """Cancels what `start_call` began, where it is under way still."""
        for slot in self._slots.values():
            if slot.pending.get(call.number) is call:
                self._post(slot, {"do": "cancel", "target": call.number})

    async def moved(self, record: Record, device: str | None) -> bool:
        """Moves an empty session to a worker that has the device it asks for. False where that cannot be.

        Its calls wait meanwhile: those sent before have been answered, and later ones go to the new worker. Nothing
        is lost where the new worker refuses: the session is then gone as after any restart, and says so.
        """
        here = self._slots[record.worker]
        # A worker in this process may have taken the call's arrays for its own: the call cannot be sent again.
        if device is None or here.spec.inline or device_of(here, device):
            return False
        if not any(device_of(slot, device) for slot in self._slots.values()):
            return False
        there = await self._place(device)
        async with record.order:
            if self._slots[record.worker] is not here:
                return device_of(self._slots[record.worker], device) is not None  # another call has moved it
            number, future = self._expect(here, False, record)
            message: Message = {"do": "leave", "id": number, "session": record.id}
            assert here.transport is not None
            here.transport.send_now(message)
            packed, _ = await self._reply(here, here.pending[number], future, record, message)
            if packed is None:
                return False
            self.registry.move(record, there.name, there.epoch)
            opened = self._send_open(there, record, None, "float32", packed["lease_s"], None, packed["session"])
        await opened
        return True

    async def _reply(
        self, slot: Slot, call: Pending, future: asyncio.Future[Any], record: Record, message: Message
    ) -> tuple[Any, Timing]:
        try:
            return await future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if message["do"] in _CANCELLABLE:
                self._post(slot, {"do": "cancel", "target": call.number})
            raise
        except NoSuchSession as error:
            if error.code != "moved":
                raise
            raise record.refused or NoSuchSession("the session was deleted", hint=Hint("list-sessions")) from None
        except Gone as error:
            if error.code == "session-expired":
                self.registry.end(record.owner, (record.id, record.name), error)
            raise

    def _expect(
        self, slot: Slot, changes: bool, record: Record | None = None, *, opens: bool = False
    ) -> tuple[int, asyncio.Future[tuple[Any, Timing]]]:
        number = next(self._ids)
        assert self._loop is not None, "start() comes first"
        future: asyncio.Future[tuple[Any, Timing]] = self._loop.create_future()
        slot.pending[number] = Pending(future, changes, record, opens, number)
        return number, future

    def _post(self, slot: Slot, message: Message) -> None:
        """Sends what nobody waits for; a worker that is gone needs it no more."""
        number = next(self._ids)
        slot.pending[number] = Pending(None, changes=False)
        try:
            if slot.transport is not None:
                slot.transport.send_now({**message, "id": number})
        except NotSent:
            slot.pending.pop(number, None)

    def _replied(self, slot: Slot, message: Message) -> None:
        number = message.get("id")
        call = slot.pending.pop(number, None) if type(number) is int else None
        if call is None:
            raise BadMessage(f"a reply to nothing: id={number!r}")
        if call.future is None or call.future.done():
            return
        answered(call, f"worker {slot.name}", message)

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
        self,
        owner: str,
        name: str | None,
        device: str | None,
        seed: int | None,
        default_dtype: str,
        lease_s: float | None = None,
        key: Sequence[str] | None = None,
        source: Record | None = None,
    ) -> Record:
        """A new session on the least loaded worker that has the device, or a copy of `source`, where that is; with an
        idempotency key and the digest of its request, the one that was made with them before."""
        known = self.registry.made_with(owner, key)
        if known is None:
            self.registry.check(owner, name)
            slot = await self._place(device, source)
            known = self.registry.made_with(owner, key)  # another call may have made it during the wait
        if known is not None:
            if known.opened is not None:
                await asyncio.shield(known.opened)
            return known
        device = source.device if source is not None else device
        where = slot.spec.devices[0] if device is None else device_of(slot, device)
        assert where is not None
        record, opened = self._open(slot, owner, name, where, seed, default_dtype, lease_s, key, source)
        async with record.order:  # a fork waits for its source, and whoever is quicker waits for the fork
            await asyncio.shield(opened)
        return record

    def _open(
        self,
        slot: Slot,
        owner: str,
        name: str | None,
        device: str,
        seed: int | None,
        default_dtype: str,
        lease_s: float | None = None,
        key: Sequence[str] | None = None,
        source: Record | None = None,
    ) -> tuple[Record, asyncio.Future[tuple[Any, Timing]]]:
        """Enters the session in the map and tells the worker; calls may follow at once, on the same wire."""
        record = self.registry.add(owner, name, slot.name, slot.epoch, device, key)
        return record, self._send_open(slot, record, seed, default_dtype, lease_s, key, source=source)

    def _send_open(
        self,
        slot: Slot,
        record: Record,
        seed: int | None,
        default_dtype: str,
        lease_s: float | None = None,
        key: Sequence[str] | None = None,
        packed: Any = None,
        source: Record | None = None,
    ) -> asyncio.Future[tuple[Any, Timing]]:
        """Tells the worker to make the session: as it was elsewhere, where it is `packed`; as `source` is."""
        number, opened = self._expect(slot, False, record, opens=True)
        record.opened = opened
        message: Message = {"do": "open", "id": number, "session": record.id, "owner": record.owner}
        message.update(name=record.name, device=record.device, seed=seed, default_dtype=default_dtype)
        message.update(number=record.number, lease_s=lease_s, key=key, packed=packed)
        if source is not None:
            message.update(do="fork", session=source.id, into=record.id, by=record.owner, public=source.public)
        if self.data is not None:
            slot.pending[number].message = message
        opened.add_done_callback(lambda future: self._opened(record, future))
        try:
            assert slot.transport is not None
            slot.transport.send_now(message)
        except Exception as error:
            give_up(slot, number, opened)
            self.registry.remove(record)
            raise not_sent(error, f"worker {slot.name}") from error
        return opened

    def _opened(self, record: Record, future: asyncio.Future[tuple[Any, Timing]]) -> None:
        record.opened = None
        error = None if future.cancelled() else future.exception()
        if isinstance(error, EngineError):
            record.refused = error
            self.registry.remove(record)

    async def close_session(self, owner: str, ref: str, key: Sequence[str] | None = None) -> None:
        """Frees all that the session holds, after the calls that came before. Raises NoSuchSession."""
        try:
            record = self.registry.find(owner, ref)
        except (Gone, NoSuchSession):
            if self.registry.forget(owner, ref):
                return
            raise
        if record is None:
            return
        async with self._unknown(record):
            # Out of the map first: whoever comes after this call finds it deleted.
            self.registry.remove(record)
            try:
                await self.call(record, {"do": "close", "key": key}, changes=self.data is not None)
            except (NoSuchSession, Gone):
                pass
            except (Unavailable, OutOfMemory):
                # A worker that dies takes its sessions with it, but not what it has on the disk.
                if self.data is not None:
                    self.registry.take_back(record)
                    raise

    @contextlib.asynccontextmanager
    async def _unknown(self, record: Record) -> AsyncIterator[None]:
        """While what a session is called changes, or that it is there: no front goes by what it remembers of it."""
        record.leaving += 1
        try:
            if self.fronts is not None:
                await self.fronts.forget(record.id)
            yield
        finally:
            record.leaving -= 1

    async def rename(self, record: Record, name: str | None) -> None:
        """Raises NameTaken, Invalid, NoSuchSession."""
        async with self._unknown(record):
            before = record.name
            self.registry.rename(record, name)
            try:
                await self.call(record, {"do": "rename", "name": name}, changes=True)
            except (Unavailable, OutOfMemory):
                with contextlib.suppress(EngineError):  # somebody else has taken the old name
                    self.registry.rename(record, before)
                raise

    async def lease(self, record: Record, lease_s: float | None) -> None:
        """How long the session stays unused; None for ever."""
        await self.call(record, {"do": "lease", "lease_s": lease_s}, changes=True)

    async def publish(self, record: Record, public: bool) -> None:
        """Whether others may read the session, under an id of 128 random bits."""
        async with record.showing:
            if public == (record.public is None):
                wanted = f"p-{secrets.token_hex(16)}" if public else None
                await self.call(record, {"do": "publish", "public": wanted}, changes=True)
                self.registry.publish(record, wanted)

    async def infos(self, records: Sequence[Record]) -> dict[str, dict[str, Any]]:
        """What the workers know of these sessions, by id; waits for no program. Lost ones are left out."""
        by_slot: dict[str, list[str]] = {}
        for record in records:
            by_slot.setdefault(record.worker, []).append(record.id)
        return await questions.infos([(self._slots[name], ids) for name, ids in by_slot.items()], self.ask)

    async def ask(self, slot: Slot, question: Message) -> Any:
        """A worker's answer to what waits for no program. Raises Unavailable, and what the worker raises."""
        if self.data is not None:
            await self._up(slot)
        number, future = self._expect(slot, False)
        try:
            if slot.transport is None:
                raise NotSent("its worker is gone")
            slot.transport.send_now({**question, "id": number})
        except NotSent as error:
            give_up(slot, number, future)
            raise not_sent(error, f"worker {slot.name}") from error
        answer, _ = await future
        return answer

    async def numbers(self, patience: float = 2.0) -> dict[str, dict[str, Any]]:
        """What each worker counts, by worker (engine.workers.questions)."""
        return await questions.numbers(self._slots.values(), self._expect, patience)

    @property
    def slots(self) -> list[Slot]:
        return list(self._slots.values())

    def expect(self, slot: Slot) -> tuple[int, asyncio.Future[tuple[Any, Timing]]]:
        """A number for a reply that a worker will give later, and what will hold it."""
        return self._expect(slot, False)

    async def _place(self, device: str | None, source: Record | None = None) -> Slot:
        """The ready worker with the fewest sessions that has the device, or that of `source`; waits a little for it."""
        slots = self._slots.values() if source is None else [self._slots[source.worker]]
        able = [slot for slot in slots if device is None or device_of(slot, device)]
        if not able:
            raise no_such_device(device or "", self.devices())
        deadline = time.monotonic() + _PATIENCE
        while not (ready := [slot for slot in able if slot.state == "ready"]):
            left = deadline - time.monotonic()
            if left <= 0 or self._closing or all(slot.state == "failing" for slot in able):
                raise Unavailable(
                    f"no worker is up; nothing was done ({able[0].name}: {able[0].last_exit or able[0].state})",
                    code="not-applied",
                    hint=Hint("try-again"),
                )
            await self._waiters.wait(left)
        return min(ready, key=lambda slot: self.registry.count(slot.name))

    def incoming(self, length: int) -> Incoming:
        """Memory for what a call will carry. Raises MemoryError."""
        kinds = {InlineTransport if slot.spec.inline else ProcessTransport for slot in self._slots.values()}
        return (InlineTransport if InlineTransport in kinds else ProcessTransport).incoming(length)

    # ------------------------------------------------ what there is

    def ready(self) -> bool:
        """Whether a worker is up and none keeps dying."""
        states = [slot.state for slot in self._slots.values()]
        return "ready" in states and "failing" not in states and "stopped" not in states

    def devices(self) -> list[str]:
        """All workers' devices, the CPU first."""
        return sorted({device for slot in self._slots.values() for device in slot.spec.devices}, key=device_order)

    async def device_facts(self) -> list[dict[str, Any]]:
        """Each worker's devices as it describes them; those of a worker that does not answer by name alone."""
        return await questions.device_facts(self._slots.values(), self._expect, _ANSWER_S)

    def simulated(self) -> bool:
        """Whether any device is a simulation."""
        return any(slot.spec.practice for slot in self._slots.values())

    def workers(self) -> list[dict[str, Any]]:
        """Each worker, for `info`."""
        return [slot.shown(self.registry.count(slot.name)) for slot in self._slots.values()]
