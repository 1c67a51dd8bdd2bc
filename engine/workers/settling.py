"""After the death of a worker: what its next incarnation says of the calls that had not been answered.

The rules are at the head of supervisor.py. Only where there is a data directory; elsewhere there is nothing to ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from engine.errors import Unavailable
from engine.limits import Limits
from engine.workers import overdue, questions
from engine.workers.messages import Message, NotSent, Timing
from engine.workers.registry import Registry
from engine.workers.seats import expired
from engine.workers.slots import Pending, Slot, end

START_TIMEOUT = 60.0  # of a worker, and of an answer that it gives as soon as it is up


class Settling:
    """Answers the orphans of a slot, or sends them again. `number`: the next number of a message; `killed` is told of
    the program that ran when its worker died."""

    def __init__(
        self,
        registry: Registry,
        limits: Limits,
        *,
        expect: Callable[..., Any],
        number: Callable[[], int],
        killed: Callable[[Message], None],
    ) -> None:
        self._registry, self._limits = registry, limits
        self._expect, self._number, self._killed = expect, number, killed

    async def settle(self, slot: Slot, inventory: Message) -> None:
        """Takes in what the new incarnation has, asks it what became of the calls of the old one, and answers them or
        sends them again. Raises Unavailable, NotSent where it has died as well."""
        self._restore(slot, inventory)
        orphans, slot.orphans = slot.orphans, []
        ran = inventory["ran"]
        culprit = next((call for call in orphans if call.message and call.message.get("call") == ran), None)
        for at, call in enumerate(orphans):
            try:
                await self._settle_one(slot, call, culprit)
            except (Unavailable, NotSent):  # this incarnation has died as well
                slot.orphans = [*orphans[at:], *slot.orphans]
                raise

    async def _settle_one(self, slot: Slot, call: Pending, culprit: Pending | None) -> None:
        record, message = call.record, call.message
        assert record is not None
        assert message is not None
        if call.future is None or call.future.done():
            return
        there = record.epoch == slot.epoch
        if call.opens:
            if there:
                call.future.set_result((None, Timing(0.0, 0.0)))
            else:
                self._registry.remove(record)
                end(call, slot, "it died while the session was made", known=True)
            return
        if message["do"] == "close" and record.worker == slot.name:
            there = True  # out of the registry already
        if not there:
            end(call, slot, "the session is lost", known=not call.changes)
            return
        if message["do"] == "run" and call.changes:
            found = await questions.outcome(slot, self._expect, record.id, message, START_TIMEOUT)
            if found["known"]:
                if found["ok"] is None:
                    end(call, slot, "it was done, but its answer is lost", known=False)
                else:
                    call.future.set_result((found["ok"], Timing(0.0, 0.0)))
                return
        if call is culprit:
            self._killed(message)
            if slot.overdue and overdue.told(call, self._limits):
                return
        if call.again or (culprit is not None and culprit.record is record and message["do"] != "close"):
            end(call, slot, "it died", known=True)
            return
        call.again, call.number = True, self._number()
        slot.pending[call.number] = call
        message.update(id=call.number, sent=time.monotonic())
        message.pop("waiter", None)  # who waited for a job has heard that the worker is gone
        assert slot.transport is not None
        await slot.transport.send(message)

    def _restore(self, slot: Slot, inventory: Message) -> None:
        self._registry.restore(slot.name, slot.epoch, inventory["sessions"], inventory.get("deletions", ()))
        self._registry.lose(
            slot.name, "it was not on the disk when its worker was started again", time.time(), but=slot.epoch
        )
        for owner, id, name, why, at in inventory["ended"]:
            self._registry.end(owner, (id, name), expired(id, name, why, at))
