"""Workers and devices: sessions that move to the one they ask for, what each device is, a device that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.errors import DeviceLost, Gone, NoSuchDevice
from engine.service import Limits, Service
from engine.workers.desk import _device_in
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


# ---------------------------------------------------------------- jobs


@pytest.mark.parametrize(
    "program, device",
    [
        ({"steps": [{"op": "ones", "args": {"size": [2]}}]}, None),
        ({"steps": [{"op": "ones", "args": {"size": [2], "device": "cuda"}}]}, "cuda:0"),
        ({"steps": [{"repeat": 2, "steps": [{"op": "to", "args": {"input": "x", "device": "cuda:1"}}]}]}, "cuda:1"),
        ({"steps": [{"op": "cuda", "args": {"input": "x"}}]}, "cuda:0"),
        ({"steps": [{"op": "cuda", "args": {"input": "x", "device": 2}}]}, "cuda:2"),
        ({"steps": [{"op": "cuda", "args": 7}]}, "cuda:0"),
        ({"inputs": {"x": {"data": ["cuda"], "device": "cuda:3"}}, "steps": []}, "cuda:3"),
        ({"inputs": {"x": {"data": ["cuda"]}}, "steps": [None, 5, "cudax"]}, None),
    ],
)
def test_the_device_that_a_program_asks_for(program: Any, device: str | None) -> None:
    assert _device_in(program) == device
    deep: Any = "cuda"
    for _ in range(5000):
        deep = [deep]
    assert _device_in(deep) is None


@asynchronous
async def test_jobs_in_an_empty_session_go_to_the_device_that_they_ask_for() -> None:
    house = Service(TWO, limits=Limits(session_bytes=64 << 20, server_bytes=256 << 20), threads=1)
    await house.start()
    try:
        asked = {"steps": [{"op": "ones", "args": {"size": [2], "device": "cuda"}, "out": "y"}], "return": ["y"]}
        keeps = {"steps": [{"op": "ones", "args": {"size": [2]}, "out": "x"}], "keep": {"x": "x"}}
        names: list[str] = []
        while len(names) < 2:  # sessions on the worker that has no GPU
            made = await house.create_session("ann", {"device": "cpu"})
            if made["worker"] == "a":
                names.append(made["id"])
        empty, full = names
        await house.run("ann", full, keeps)
        _, reply = await house.submit("ann", empty, {**asked}, about={}, wait=20)
        assert reply is not None
        assert reply[0]["results"]["y"].device == "cuda:0"
        assert (await house.session_info("ann", empty))["worker"] == "b"
        with pytest.raises(NoSuchDevice) as caught:
            await house.submit("ann", full, {**asked}, about={}, wait=20)
        assert caught.value.hint is not None
        assert (await house.session_info("ann", full))["worker"] == "a"
    finally:
        await house.close()
