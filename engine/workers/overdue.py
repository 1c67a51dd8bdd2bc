"""The last resort against a step that does not end: its worker is killed, and starts anew.

A step cannot be interrupted, so a program's time is looked at between steps, and work that could not end is refused
before it begins (engine.costs). What slips through both keeps its worker from answering anything. A worker that has
said nothing for as long as a program may run, and `GRACE` seconds more, is therefore killed. The supervisor then does
what it does after any death: the program that ran is told that its time was over, other calls are run again.

Where there is no data directory a kill costs everybody of that worker their sessions, and nobody knows which program it
was. So it is logged first, and the step has `PATIENCE` times as long; a worker that is silent even then would give
nothing back to anybody, and takes new sessions once it is started anew. A worker in this process cannot be killed.
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
PATIENCE = 3  # times as long a step is waited for where its end is that of all sessions
LOOK = 5.0  # seconds between two looks

log = logging.getLogger("curlgrad.supervisor")

Expect = Callable[[Slot, bool], tuple[int, "asyncio.Future[Any]"]]


async def ended(
    slot: Slot, gone: asyncio.Future[str], expect: Expect, limits: Limits, *, kept: bool, shared: bool = False
) -> str:
    """Waits for the end of the worker, and brings it about where a step is overdue; why it ended. `kept`: whether its
    sessions outlive it; `shared`: whether others than this process have calls under way there."""
    slot.overdue = False
    if slot.spec.inline or not limits.max_seconds:
        return await gone
    patience = limits.max_seconds + GRACE
    clock = asyncio.get_running_loop().time
    silent: float | None = None  # since when
    while not gone.done():
        await asyncio.wait({gone}, timeout=min(LOOK, patience / 2))
        asked = clock()
        if gone.done() or not (slot.pending or shared) or await _answers(slot, gone, expect, patience):
            silent = None
            continue
        if kept or (silent is not None and clock() - silent >= patience * PATIENCE):
            slot.overdue = True
            assert isinstance(slot.transport, ProcessTransport)
            waited = patience if kept else patience * PATIENCE
            slot.transport.kill(f"a step ran for more than {waited:g} s, and could not be interrupted")
            return await gone
        if silent is None:
            silent = asked
            log.error(
                "worker %s: a step has run for more than %g s, and cannot be interrupted; if it still runs after %g s "
                "the worker is ended, and all its sessions with it, which are in memory alone (--data-dir)",
                slot.name,
                patience,
                patience * PATIENCE,
            )
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
