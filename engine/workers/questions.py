"""What a front asks of workers that they answer between two steps, with patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from engine.errors import EngineError, Gone, Unavailable
from engine.workers.messages import Message, NotSent
from engine.workers.slots import Slot, give_up, unknown_devices

Ask = Callable[[Slot, Message], Awaitable[Any]]
Expect = Callable[[Slot, bool], tuple[int, "asyncio.Future[Any]"]]


async def numbers(slots: Iterable[Slot], expect: Expect, patience: float) -> dict[str, dict[str, Any]]:
    """What each worker counts, by worker; of one that does not answer in time (a long step) what it said last."""
    slots = list(slots)
    await asyncio.gather(*(_numbers(slot, expect, patience) for slot in slots))
    return {slot.name: slot.numbers for slot in slots}


async def _numbers(slot: Slot, expect: Expect, patience: float) -> None:
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


async def device_facts(slots: Iterable[Slot], expect: Expect, patience: float) -> list[dict[str, Any]]:
    """Each worker's devices as it describes them; those of a worker that does not answer by name alone."""
    found = await asyncio.gather(*(_device_facts(slot, expect, patience) for slot in slots))
    return [facts for of_one in found for facts in of_one]


async def _device_facts(slot: Slot, expect: Expect, patience: float) -> list[dict[str, Any]]:
    unknown = unknown_devices(slot)
    if slot.state != "ready" or slot.transport is None:
        return unknown
    number, future = expect(slot, False)
    try:
        slot.transport.send_now({"do": "devices", "id": number})
        answer, _ = await asyncio.wait_for(future, patience)
    except (NotSent, Unavailable, TimeoutError):
        give_up(slot, number, future)
        return unknown
    return [{**facts, "worker": slot.name} for facts in answer]


async def outcome(slot: Slot, expect: Expect, session: str, message: Message, patience: float) -> Any:
    """What became of a call that the incarnation before took: {"known", "ok"}."""
    number, future = expect(slot, False)
    question = {"do": "outcome", "id": number, "session": session, "call": message["call"]}
    assert slot.transport is not None
    slot.transport.send_now({**question, "values": message["values"]})
    try:
        found, _ = await asyncio.wait_for(future, patience)
    except Gone:  # set aside: nobody can know
        return {"known": True, "ok": None}
    return found


async def infos(asked: Sequence[tuple[Slot, list[str]]], ask: Ask) -> dict[str, dict[str, Any]]:
    """What workers know of sessions, by id; those of a worker that does not answer are left out."""
    replies = await asyncio.gather(*(_infos(slot, ids, ask) for slot, ids in asked))
    return {key: info for reply in replies for key, info in reply.items() if info is not None}


async def _infos(slot: Slot, ids: list[str], ask: Ask) -> dict[str, dict[str, Any] | None]:
    try:
        answer = await ask(slot, {"do": "info", "sessions": ids})
    except Unavailable:
        return {}
    known: dict[str, dict[str, Any] | None] = answer["infos"]
    return known
