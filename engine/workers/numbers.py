"""What workers count, for /metrics: asked of each, with patience, and answered between two steps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from engine.errors import EngineError
from engine.workers.slots import Slot, give_up
from engine.workers.transports import NotSent

Expect = Callable[[Slot, bool], tuple[int, "asyncio.Future[Any]"]]


async def ask(slots: Iterable[Slot], expect: Expect, patience: float) -> dict[str, dict[str, Any]]:
    """What each worker counts, by worker; of one that does not answer in time (a long step) what it said last."""
    slots = list(slots)
    await asyncio.gather(*(_ask(slot, expect, patience) for slot in slots))
    return {slot.name: slot.numbers for slot in slots}


async def _ask(slot: Slot, expect: Expect, patience: float) -> None:
    slot.numbers = {**slot.numbers, "answered": False}
    if slot.transport is None or slot.state != "ready":
        return
    number, future = expect(slot, False)
    try:
        slot.transport.send_now({"do": "info", "id": number, "sessions": [], "numbers": True})
    except NotSent:
        give_up(slot, number, future)
        return
    with contextlib.suppress(TimeoutError, EngineError):
        known, _ = await asyncio.wait_for(future, patience)
        slot.numbers = {**known["numbers"], "waiting": known["waiting"], "answered": True}
