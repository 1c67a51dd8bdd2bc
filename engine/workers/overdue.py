"""The last resort against a step that does not end: its worker is killed, and starts anew.

A step cannot be interrupted, so a program's time is looked at between steps, and work that could not end is refused
before it begins (engine.costs). What slips through both keeps its worker from answering anything. A worker that has
said nothing for as long as a program may run, and `GRACE` seconds more, is therefore killed. The supervisor then does
what it does after any death: the program that ran is told that its time was over, other calls are run again.

Only where there is a data directory: elsewhere a kill would cost everybody of that worker their sessions, so that is
logged alone. A worker in this process cannot be killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from engine.bounds import step_overdue
from engine.limits import Limits
from engine.workers.messages import NotSent
from engine.workers.slots import Pending, Slot, give_up
from engine.workers.transports import ProcessTransport

GRACE = 30.0  # seconds: also for what is no step, such as reading a large session from the disk
LOOK = 5.0  # seconds between two looks

log = logging.getLogger("curlgrad.supervisor")

Expect = Callable[[Slot, bool], tuple[int, "asyncio.Future[Any]"]]


async def ended(
    slot: Slot, gone: asyncio.Future[str], expect: Expect, limits: Limits, *, kills: bool, shared: bool = False
) -> str:
    """Waits for the end of the worker, and brings it about where a step is overdue; why it ended. `kills`: whether
    its sessions outlive it; `shared`: whether others than this process have calls under way there."""
    slot.overdue = False
    if slot.spec.inline or not limits.max_seconds:
        return await gone
    patience = limits.max_seconds + GRACE
    told = False
    while not gone.done():
        await asyncio.wait({gone}, timeout=min(LOOK, patience / 2))
        if gone.done() or not (slot.pending or shared) or await _answers(slot, gone, expect, patience):
            continue
        why = f"a step ran for more than {patience:g} s, and could not be interrupted"
        if kills:
            slot.overdue = True
            assert isinstance(slot.transport, ProcessTransport)
            slot.transport.kill(why)
            return await gone
        if not told:
            told = True
            log.error("worker %s: %s; it is not killed, as its sessions would be lost (--data-dir)", slot.name, why)
    return gone.result()


async def _answers(slot: Slot, gone: asyncio.Future[str], expect: Expect, patience: float) -> bool:
    """Whether the worker, which answers between any two steps, does so in time; True too where it is gone."""
    number, future = expect(slot, False)
    future.add_done_callback(_seen)
    try:
        assert slot.transport is not None
        slot.transport.send_now({"do": "info", "id": number, "sessions": []})
    except NotSent:  # it has too much to read as it is
        give_up(slot, number, future)
    waited: set[asyncio.Future[Any]] = {gone} if future.cancelled() else {gone, future}
    await asyncio.wait(waited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    return gone.done() or (future.done() and not future.cancelled())


def _seen(future: asyncio.Future[Any]) -> None:
    """A worker that is gone answers with an error, which is no news here."""
    if not future.cancelled():
        future.exception()


def told(call: Pending, limits: Limits) -> bool:
    """Tells who waits for it that this call's step was overdue."""
    if call.future is not None and not call.future.done():
        call.future.set_exception(step_overdue(limits.max_seconds))
    return True
