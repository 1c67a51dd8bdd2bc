"""Sessions that are forked, hidden, changed and deleted at once: what is answered is what some order would answer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Bug, EngineError, NoSuchSession
from engine.service import Limits, Service
from tests.engine.durability.test_service import LIMITS, killed, served
from tests.engine.programs import step
from tests.engine.workers.fakes import asynchronous

SIZE = 4096
MADE: dict[str, Any] = {
    "inputs": {name: {"data": [1.0] * SIZE} for name in ("x", "y")},
    "keep": {"x": "x", "y": "y"},
}
# Both or none: a fork that sees one of them was taken in the middle of a change.
BOTH: dict[str, Any] = {"steps": [step("add_", input=name, other=1) for name in ("x", "y")]}
SEEN: dict[str, Any] = {"steps": [step("amin", name, input=name) for name in ("x", "y")], "return": ["x", "y"]}
WORDS = {"no-such-session", "not-applied", "session-deleted"}


@asynccontextmanager
async def memory(workers: str) -> AsyncIterator[Service]:
    """A service that keeps nothing."""
    service = Service(workers, limits=Limits(**LIMITS), threads=1)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def seen(service: Service, owner: str, session: str) -> float:
    """The number that all of x and y are."""
    answer, _ = await service.run(owner, session, {**SEEN})
    found = {float(part.values) for part in answer["results"].values()}
    assert len(found) == 1, found
    return found.pop()


async def race(service: Service, chance: random.Random, number: int) -> list[str]:
    """Ann's session is shown, and all at once forked by two, changed, hidden, shown again and deleted; the forks."""
    name = f"lesson-{number}"
    await service.create_session("ann", {"name": name})
    await service.run("ann", name, {**MADE})
    public = (await service.patch_session("ann", name, {"public": True}))["public_id"]
    forks = [("bob", f"f{number}-{k}") for k in range(3)]
    calls: list[Any] = [service.create_session(who, {"fork": public, "name": to}) for who, to in forks]
    calls += [service.run("ann", name, {**BOTH}) for _ in range(3)]
    calls += [service.query("bob", public, {"do": "read", "ref": "x"}, "none") for _ in range(2)]
    calls.append(service.patch_session("ann", name, {"public": False}))
    if chance.random() < 0.7:
        calls.append(service.delete_session("ann", name))
    if chance.random() < 0.5:
        calls.append(service.patch_session("ann", name, {"public": True}))
    order = list(range(len(calls)))
    chance.shuffle(order)
    ended: dict[int, Any] = {}

    async def one(at: int) -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        try:
            ended[at] = await calls[at]
        except EngineError as error:
            ended[at] = error

    await asyncio.gather(*(one(at) for at in order))
    for error in ended.values():
        if isinstance(error, EngineError):
            assert not isinstance(error, Bug), error.detail
            assert error.code in WORDS, (error.code, error.detail)
            assert "worker" not in error.detail, error.detail
    done = [to for at, (_, to) in enumerate(forks) if not isinstance(ended[at], Exception)]
    for to in done:
        assert await seen(service, "bob", to) in (1.0, 2.0, 3.0, 4.0)
        before = await seen(service, "bob", to)
        await service.run("bob", to, {**BOTH})
        assert await seen(service, "bob", to) == before + 1
    with pytest.raises(NoSuchSession):
        await service.query("bob", public, {"do": "read", "ref": "x"}, "none")
    return done


@pytest.mark.parametrize("workers", ["cpu:1", "inline", "cpu:2"])
@pytest.mark.parametrize("durable", [True, False])
@asynchronous
async def test_forks_race_with_what_becomes_of_their_source(tmp_path: Path, workers: str, durable: bool) -> None:
    chance = random.Random(f"{workers} {durable}")
    told: Counter[str] = Counter()
    there: dict[str, float] = {}
    async with served(tmp_path, workers) if durable else memory(workers) as service:
        for number in range(12):
            done = await race(service, chance, number)
            told["forked"] += len(done)
            told["refused"] += 3 - len(done)
            there |= {name: await seen(service, "bob", name) for name in done}
        assert min(told["forked"], told["refused"]) > 0, told
        if durable and workers == "cpu:1":
            await killed(service)
        listed = {one["name"] for one in (await service.list_sessions("bob"))["sessions"]}
        assert listed == set(there)
        for owner in ("ann", "bob"):
            for one in (await service.list_sessions(owner))["sessions"]:
                if durable and owner == "bob" and one["name"] in list(there)[:2]:
                    continue
                await service.delete_session(owner, one["id"])
        if not durable:
            assert (await service.usage("bob"))["bytes"] == (await service.usage("ann"))["bytes"] == 0
    if durable:
        async with served(tmp_path, workers) as service:
            for name in list(there)[:2]:
                assert await seen(service, "bob", name) == there[name]
            assert {one["name"] for one in (await service.list_sessions("bob"))["sessions"]} == set(list(there)[:2])
            assert (await service.list_sessions("ann"))["sessions"] == []


@pytest.mark.parametrize("workers", ["cpu:1", "inline"])
@asynchronous
async def test_whoever_shows_a_session_is_told_the_id_that_holds(tmp_path: Path, workers: str) -> None:
    async with served(tmp_path, workers) as service:
        made = await service.create_session("ann", {"name": "lesson"})
        shows = [service.patch_session("ann", made["id"], {"public": True}) for _ in range(5)]
        (public,) = {told["public_id"] for told in await asyncio.gather(*shows)}
        assert (await service.session_info("bob", public))["public_id"] == public
        hides = [service.patch_session("ann", made["id"], {"public": bool(k % 2)}) for k in range(6)]
        told = [found["public_id"] for found in await asyncio.gather(*hides)]
        now = (await service.session_info("ann", made["id"]))["public_id"]
        assert now == told[-1] != public
    async with served(tmp_path, workers) as service:
        assert (await service.session_info("ann", made["id"]))["public_id"] == now
