"""Workers and devices: sessions that move to the one they ask for, what each device is, a device that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.errors import DeviceLost, Gone, NoSuchDevice
from engine.workers.supervisor import Supervisor, WorkerSpec
from tests.engine.workers.fakes import FACTORY, LIMITS, asynchronous
from tests.engine.workers.test_supervisor import pid, run, until, workers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets")

TWO = (WorkerSpec("a", ("cpu",)), WorkerSpec("b", ("cpu", "cuda:0"), practice=True))


@contextlib.asynccontextmanager
async def of_specs(*specs: WorkerSpec) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(specs, LIMITS, factory=FACTORY, threads=1)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.close()


def device(name: str) -> dict[str, Any]:
    return {"op": "device", "args": {"device": name}}


@asynchronous
async def test_an_empty_session_moves_to_the_device_that_it_asks_for() -> None:
    async with of_specs(*TWO) as supervisor:
        record = await supervisor.open("ann", "x", "cpu", 77, "float32")
        assert record.worker == "a"
        assert await run(supervisor, record, device("cuda:0")) == {"device": "cuda:0"}
        assert (record.worker, record.device) == ("b", "cpu")
        assert await run(supervisor, record, "seed") == {"seed": 77}
        assert [supervisor.registry.count(name) for name in "ab"] == [0, 1]
        assert (await supervisor.find("ann", "x")) is record
        await supervisor.close_session("ann", "x")
        assert [supervisor.registry.count(name) for name in "ab"] == [0, 0]


@asynchronous
async def test_a_session_with_tensors_stays() -> None:
    async with of_specs(*TWO) as supervisor:
        record = await supervisor.open("ann", None, "cpu", None, "float32")
        await run(supervisor, record, "add")
        with pytest.raises(NoSuchDevice):
            await run(supervisor, record, "add", device("cuda:0"))
        assert record.worker == "a"
        assert await run(supervisor, record, "number") == {"n": 1}
        with pytest.raises(NoSuchDevice):
            await run(supervisor, record, device("cuda:5"))


@asynchronous
async def test_calls_at_once_while_a_session_moves() -> None:
    async with of_specs(*TWO) as supervisor:
        record = await supervisor.open("ann", None, "cpu", None, "float32")
        asked = [run(supervisor, record, device("cuda:0")) for _ in range(5)]
        assert await asyncio.gather(*asked) == [{"device": "cuda:0"}] * 5
        assert record.worker == "b"


@asynchronous
async def test_what_each_device_is() -> None:
    async with of_specs(*TWO) as supervisor:
        found = await supervisor.device_facts()
        assert [(one["name"], one["worker"], one["simulated"]) for one in found] == [
            ("cpu", "a", False),
            ("cpu", "b", False),
            ("cuda:0", "b", True),
        ]
        assert all(one["model"] for one in found)
        assert all(set(one["memory"]) == {"total", "free", "used", "held", "limit"} for one in found)
        assert supervisor.simulated()


@asynchronous
async def test_a_lost_device_ends_its_worker_which_starts_anew() -> None:
    async with workers() as supervisor:
        first = pid(supervisor)
        record = await supervisor.find("ann", None)
        with pytest.raises(DeviceLost, match="cuda:0 failed") as caught:
            await run(supervisor, record, "add", "lose")
        assert caught.value.code == "not-applied"
        await until(lambda: supervisor.workers()[0]["restarts"] == 1)
        await until(supervisor.ready)
        assert supervisor.workers()[0]["last_exit"] == "its GPU failed, in a way that only a new process gets over"
        assert pid(supervisor) != first
        for ref in (record.id, None):  # of the default session it is said once
            with pytest.raises(Gone, match="its GPU failed"):
                await supervisor.find("ann", ref)
        again = await supervisor.find("ann", None)
        assert await run(supervisor, again, "add", "number") == {"n": 1}
