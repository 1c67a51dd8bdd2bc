"""Where a front asks about jobs, which live in the workers: the worker of a job is whichever knows it."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError, Gone, Hint, NoSuchJob, Unavailable
from engine.workers.messages import Message, Timing
from engine.workers.registry import Record
from engine.workers.slots import Slot, device_of
from engine.workers.supervisor import Supervisor

_DEPTH = 50  # of a program, deeper than any that runs
_CUDA = re.compile(r"cuda(:\d{1,3})?")
_REMEMBERED = 10_000  # jobs that are known here, too, so that it can be said what became of them

Reply = tuple[dict[str, Any], Timing]


@dataclass(slots=True, frozen=True)
class _Taken:
    owner: str
    session: str
    worker: str
    epoch: int
    created: float
    about: dict[str, Any]


class Desk:
    """Takes jobs, and tells of them. Used in the supervisor's event loop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._taken: OrderedDict[str, _Taken] = OrderedDict()

    async def submit(
        self,
        record: Record,
        program: dict[str, Any],
        *,
        values: str,
        explain: bool,
        about: dict[str, Any],
        once: tuple[str, str] | None = None,
        wait: float = 0.0,
    ) -> tuple[dict[str, Any], Reply | None]:
        """The job as it stands when it is taken (on the disk, too, where there is one), and its answer where it ends
        within `wait` seconds. Raises what refuses a call; and, within `wait` seconds, what the program raises."""
        await self._move(record, program)
        message: Message = {"do": "job", "job": _new_id(), "program": program, "values": values}
        message.update(explain=explain, about=about)
        if once is not None:
            message.update(key=once[0], digest=once[1])
        supervisor = self._supervisor
        where: list[Slot] = []
        waiting: list[tuple[int, asyncio.Future[Reply]]] = []

        def before(slot: Slot) -> None:
            where.append(slot)
            if wait > 0:
                waiting.append(supervisor.expect(slot))
                message["waiter"] = waiting[-1][0]

        try:
            job, _ = await supervisor.call(record, message, changes=True, before=before)
        except EngineError:
            for slot, (number, _) in zip(where, waiting, strict=False):
                slot.pending.pop(number, None)  # whoever refuses a job answers for it no more
            raise
        self._remember(record, job)
        if not waiting:
            return job, None
        return job, await self._answer(record.owner, job["job"], waiting[-1][1], wait)

    async def _move(self, record: Record, program: dict[str, Any]) -> None:
        """Where the program names a device that the session's worker lacks, an empty session moves to it, as it does
        for a program that somebody waits for; that one is sent again, and a job has been taken by then."""
        supervisor = self._supervisor
        device = _device_in(program)
        here = next(slot for slot in supervisor.slots if slot.name == record.worker)
        if device is None or device_of(here, device):
            return
        known = (await supervisor.infos([record])).get(record.id)
        if known is not None and not known.get("tensors", 1):  # asked first, as moving waits for the calls before it
            await supervisor.moved(record, device)

    async def _answer(self, owner: str, job: str, waiter: asyncio.Future[Reply], seconds: float) -> Reply | None:
        try:
            return await asyncio.wait_for(asyncio.shield(waiter), seconds)
        except TimeoutError:
            return None
        except Unavailable:
            # Either the program was answered so, or its worker has died, which a job may outlive.
            found = await self.look(owner, job)
            if found["problem"] is None:
                return None
            raise
        finally:
            waiter.cancel()  # what comes later goes to nobody

    def _remember(self, record: Record, job: dict[str, Any]) -> None:
        self._taken[job["job"]] = _Taken(
            record.owner, record.id, record.worker, record.epoch, job["created"], job["about"]
        )
        while len(self._taken) > _REMEMBERED:
            self._taken.popitem(last=False)

    async def look(self, owner: str, job: str, **how: Any) -> dict[str, Any]:
        """A job as it stands (engine.workers.jobs.Jobs.look). Waits for no program. Raises NoSuchJob, Unavailable."""
        question: Message = {"do": "look", "owner": owner, "job": job, **how}
        found: dict[str, Any] | None = await self._ask(owner, job, question)
        return self._lost(owner, job) if found is None else found

    async def cancel(self, owner: str, job: str) -> None:
        """Ends a job, the session as it was before; nothing where it has ended. Raises NoSuchJob, Unavailable."""
        if await self._ask(owner, job, {"do": "drop", "owner": owner, "job": job}) is None:
            self._lost(owner, job)

    async def all(self, owner: str) -> list[dict[str, Any]]:
        """The owner's jobs, in the order of their making; those of a worker that is not up are left out."""
        asked = [self._supervisor.ask(slot, {"do": "jobs", "owner": owner}) for slot in self._supervisor.slots]
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, Unavailable):
                raise one
        known = [job for one in found if not isinstance(one, BaseException) for job in one]
        there = {job["job"] for job in known}
        known += [
            self._lost(owner, id)
            for id, taken in self._taken.items()
            if id not in there and self._is_lost(taken, owner)
        ]
        return sorted(known, key=lambda job: job["job"])

    async def _ask(self, owner: str, job: str, question: Message) -> Any:
        """The answer of the worker that has the job; None where none has it. Raises Unavailable where one that may have
        it does not answer."""
        slots = self._supervisor.slots
        taken = self._taken.get(job)
        if taken is not None:  # it is there still, but for a server that was started with other workers
            slots.sort(key=lambda slot: slot.name != taken.worker)
        silent: Unavailable | None = None
        for slot in slots:
            try:
                found = await self._supervisor.ask(slot, question)
            except Unavailable as error:
                silent = error
                continue
            if found is not None:
                return found
        if silent is not None and not (taken is not None and self._is_lost(taken, owner)):
            raise silent
        return None

    def _is_lost(self, taken: _Taken, owner: str) -> bool:
        """Whether the job went with its worker."""
        return (
            taken.owner == owner
            and self._supervisor.data is None
            and any(slot.name == taken.worker and slot.epoch != taken.epoch for slot in self._supervisor.slots)
        )

    def _lost(self, owner: str, job: str) -> dict[str, Any]:
        """What is told of a job that went with its worker. Raises NoSuchJob for any other."""
        taken = self._taken.get(job)
        if taken is None or not self._is_lost(taken, owner):
            raise NoSuchJob(f"there is no job {job[:100]!r}", hint=Hint("list-jobs"), param="job")
        gone = Gone(
            "the job was lost with its worker, and its session with it: this server keeps nothing on disk",
            code="job-lost",
            hint=Hint("job-lost"),
        )
        return {
            "job": job,
            "session": taken.session,
            "state": "failed",
            "created": taken.created,
            "ended": None,
            "kept_until": None,
            "position": None,
            "steps_run": 0,
            "steps": None,
            "rounds": [],
            "of": [],
            "seconds": 0.0,
            "about": taken.about,
            "problem": gone.to_data(),
            "reply": None,
            "collected": {},
            "seen": [],
            "more": False,
        }


def _device_in(value: Any, depth: int = 0) -> str | None:
    """The first CUDA device that a program's arguments name, or need: `cuda()` without one means the first."""
    if depth > _DEPTH:
        return None
    if type(value) is dict:
        if value.get("op") == "cuda":
            given = value.get("args")
            index = given.get("device") if type(given) is dict else None
            return f"cuda:{index}" if type(index) is int else _device_in(index) or "cuda:0"
        parts = [part for name, part in value.items() if name != "data"]
    elif type(value) is list:
        parts = value
    else:
        match = _CUDA.fullmatch(value) if type(value) is str else None
        return None if match is None else match[0] if match[1] else "cuda:0"
    return next(filter(None, (_device_in(part, depth + 1) for part in parts)), None)


def _new_id() -> str:
    """128 random bits, behind the time in microseconds: in order of making."""
    return f"j-{time.time_ns() // 1000:014x}{secrets.token_hex(16)}"
