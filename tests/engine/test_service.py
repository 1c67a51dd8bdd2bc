"""The one door, with stand-ins for sessions where only the door is meant, and with real ones at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.dtypes import DTYPES
from engine.errors import (
    EngineError,
    Invalid,
    LimitExceeded,
    NameTaken,
    NoSuchDevice,
    NoSuchSession,
    UnknownParameter,
    WrongType,
)
from engine.limits import Limits
from engine.service import ArrayData, Service, TensorAnswer, Timing
from tests.engine.workers.fakes import FACTORY, LIMITS, asynchronous

WORKERS = ["inline"] if sys.platform == "win32" else ["inline", "cpu:1"]
everywhere = pytest.mark.parametrize("workers", WORKERS)


@contextlib.asynccontextmanager
async def serving(workers: str = "inline", limits: Limits = LIMITS, factory: str = FACTORY) -> AsyncIterator[Service]:
    service = Service(workers, limits=limits, factory=factory, threads=1)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


@asynchronous
async def test_what_the_server_says_of_itself() -> None:
    service = Service("inline", limits=LIMITS, factory=FACTORY)
    assert not service.ready()
    assert service.info()["workers"][0]["state"] == "starting"
    await service.start()
    assert service.ready()
    await service.create_session("ann", {})
    info = service.info()
    assert info["durability"] == "none"
    assert "do not survive a restart" in info["durability_note"]
    assert info["dtypes"] == list(DTYPES)
    assert info["devices"] == [{"name": "cpu", "simulated": False, "workers": ["inline"]}]
    assert info["limits"]["session_bytes"] == LIMITS.session_bytes
    (worker,) = info["workers"]
    assert (worker["name"], worker["devices"], worker["state"], worker["sessions"]) == ("inline", ["cpu"], "ready", 1)
    assert info["version"]
    assert info["build"]["numpy"] == np.__version__
    assert set(info["build"]) == {"python", "platform", "numpy", "numba", "cupy"}
    json.dumps(info)
    await service.close()
    assert not service.ready()


@asynchronous
async def test_a_practice_device_is_marked() -> None:
    if sys.platform == "win32":
        pytest.skip("needs Unix sockets")
    async with serving("practice-cuda") as service:
        assert [(one["name"], one["simulated"]) for one in service.info()["devices"]] == [
            ("cpu", False),
            ("cuda:0", True),
        ]


@everywhere
@asynchronous
async def test_a_session_s_life(workers: str) -> None:
    async with serving(workers) as service:
        begin = time.time()
        made = await service.create_session(
            "ann", {"name": "x", "device": "cpu", "seed": 7, "default_dtype": "torch.double"}
        )
        assert list(made) == [
            "id", "name", "state", "tensors", "bytes", "seed", "worker", "device", "default_dtype", "created",
            "last_used", "expires_at", "public_id",
        ]  # fmt: skip
        assert (made["name"], made["seed"], made["device"], made["default_dtype"]) == ("x", 7, "cpu", "float64")
        assert made["expires_at"] is None
        assert begin - 1 <= made["created"] <= time.time() + 1
        assert made == await service.session_info("ann", "x") == await service.session_info("ann", made["id"])

        reply, timing = await service.run("ann", "x", {"steps": [{"op": "add"}, {"op": "number"}]})
        assert reply["results"] == {"n": 1}
        assert isinstance(timing, Timing)
        reply, _ = await service.run("ann", "x", {"steps": [{"op": "add"}]}, dry_run=True)
        assert (await service.query("ann", "x", {"do": "read", "ref": "n"}))[0] == 1

        changed = await service.patch_session("ann", "x", {"name": "y", "seed": 8, "default_dtype": "float16"})
        assert (changed["id"], changed["name"], changed["seed"], changed["default_dtype"]) == (
            made["id"],
            "y",
            8,
            "float16",
        )
        assert (await service.patch_session("ann", "y", {}))["name"] == "y"
        assert (await service.patch_session("ann", "y", {"name": None}))["name"] is None
        await service.delete_session("ann", made["id"])
        await service.delete_session("ann", made["id"])
        with pytest.raises(NoSuchSession):
            await service.session_info("ann", made["id"])


@everywhere
@asynchronous
async def test_the_default_session(workers: str) -> None:
    async with serving(workers) as service:
        await service.delete_session("ann", None)
        assert (await service.list_sessions("ann"))["sessions"] == []
        await service.run("ann", None, {"steps": [{"op": "add"}]})
        info = await service.session_info("ann", "default")
        assert info["name"] == "default"
        assert await service.session_info("ann", None) == info
        with pytest.raises(NameTaken):
            await service.create_session("ann", {"name": "default"})
        await service.delete_session("ann", "default")
        made = await service.create_session("ann", {"name": "default", "seed": 3})
        assert (await service.session_info("ann", None))["id"] == made["id"] != info["id"]
        assert (await service.query("ann", None, {"do": "read", "ref": "n"}))[0] is None, "a reset"


@asynchronous
async def test_owners_do_not_see_each_other() -> None:
    async with serving() as service:
        made = await service.create_session("ann", {"name": "x"})
        assert (await service.list_sessions("bob"))["sessions"] == []
        for ref in ("x", made["id"]):
            for call in (
                service.session_info("bob", ref),
                service.patch_session("bob", ref, {"name": "z"}),
                service.delete_session("bob", ref),
                service.run("bob", ref, {"steps": []}),
                service.query("bob", ref, {"do": "info"}),
            ):
                with pytest.raises(NoSuchSession):
                    await call


@asynchronous
async def test_lists_in_pages() -> None:
    async with serving() as service:
        names = [(await service.create_session("ann", {"name": f"s{i}"}))["name"] for i in range(5)]
        seen, cursor = [], None
        for _ in range(3):
            page = await service.list_sessions("ann", limit=2, cursor=cursor)
            seen += [one["name"] for one in page["sessions"]]
            cursor = page["cursor"]
        assert seen == names
        assert cursor is None
        assert (await service.list_sessions("ann"))["sessions"][2] == await service.session_info("ann", "s2")
        for limit in (0, 1001):
            with pytest.raises(Invalid):
                await service.list_sessions("ann", limit=limit)


@pytest.mark.parametrize(
    "options, error, param",
    [
        ({"colour": "red"}, UnknownParameter, "colour"),
        ({"name": 5}, WrongType, "name"),
        ({"name": "a b"}, Invalid, "name"),
        ({"seed": True}, WrongType, "seed"),
        ({"seed": 1 << 64}, Invalid, "seed"),
        ({"device": "tpu"}, NoSuchDevice, "device"),
        ({"default_dtype": "int64"}, Invalid, "default_dtype"),
        ({"default_dtype": "float31"}, Invalid, None),
    ],
    ids=str,
)
@asynchronous
async def test_options_that_cannot_be(options: dict[str, Any], error: type[EngineError], param: str | None) -> None:
    async with serving() as service:
        with pytest.raises(error) as caught:
            await service.create_session("ann", options)
        assert caught.value.param == param
        assert (await service.list_sessions("ann"))["sessions"] == []


@asynchronous
async def test_a_refused_change_changes_nothing() -> None:
    async with serving() as service:
        await service.create_session("ann", {"name": "x"})
        before = await service.create_session("ann", {"name": "y", "seed": 1})
        for changes in ({"name": "x", "seed": 2}, {"seed": 2, "default_dtype": "int8"}, {"device": "cpu"}):
            with pytest.raises(EngineError):
                await service.patch_session("ann", "y", changes)
        assert (await service.session_info("ann", "y"))["seed"] == 1
        assert (await service.session_info("ann", "y"))["id"] == before["id"]


@asynchronous
async def test_the_number_of_sessions_is_limited() -> None:
    async with serving(limits=replace(LIMITS, max_sessions=3)) as service:
        for _ in range(3):
            await service.create_session("ann")
        for call in (service.create_session("ann"), service.run("ann", None, {"steps": []})):
            with pytest.raises(LimitExceeded) as caught:
                await call
            assert caught.value.facts == {"held": 3, "limit": 3}
        await service.create_session("bob")


# ---------------------------------------------------------------- with real sessions

REAL = "engine.session:Session"


@everywhere
@asynchronous
async def test_tensors_through_the_door(workers: str) -> None:
    async with serving(workers, factory=REAL) as service:
        data = np.arange(90_000, dtype=np.float32).reshape(300, 300)
        program = {
            "inputs": {"x": {"data": ArrayData(data, "float32"), "requires_grad": True}},
            "steps": [
                {"op": "mul", "args": {"input": "x", "other": 2}, "out": "y"},
                {"op": "sum", "args": {"input": "y"}, "out": "s"},
                {"op": "backward", "args": {"input": "s"}},
            ],
            "return": ["y", "s", "x.grad"],
            "keep": {"x": "x"},
        }
        reply, timing = await service.run("ann", None, program, "all")
        y, s, grad = (reply["results"][name] for name in ("y", "s", "x.grad"))
        assert isinstance(y, TensorAnswer)
        assert np.array_equal(y.values, 2 * np.arange(90_000, dtype=np.float32).reshape(300, 300))
        assert s.values.shape == ()
        assert grad.values.min() == grad.values.max() == 2.0
        assert timing.run_ms > 0
        # The given values are the session's own now: a change shows there, and not in what was answered before.
        before, _ = await service.query("ann", None, {"do": "read", "ref": "x"}, "all")
        step = {"op": "mul_", "args": {"input": "x", "other": 0}}
        await service.run("ann", None, {"steps": [step], "no_grad": True})
        after, _ = await service.query("ann", None, {"do": "read", "ref": "x"}, "all")
        assert after.values.max() == 0.0
        assert before.values[299, 299] == 89_999.0
        info = await service.session_info("ann", None)
        assert info["tensors"] == 1
        assert info["bytes"]["tensors"] == 360_000


@everywhere
@asynchronous
async def test_looking_at_a_session_while_its_program_runs_does_not_disturb_its_undoing(workers: str) -> None:
    async with serving(workers, factory=REAL) as service:
        await service.run(
            "ann",
            None,
            {
                "steps": [{"op": "zeros", "args": {"size": [1000]}, "out": name} for name in ("x", "y")],
                "keep": {"x": "x", "y": "y"},
            },
        )
        program = {
            "steps": [
                {"repeat": 10_000, "steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]},
                {"repeat": 10_000, "steps": [{"op": "add_", "args": {"input": "y", "other": 1}}]},
                {"op": "mm", "args": {"input": "x", "mat2": "x"}},
            ]
        }
        task = asyncio.create_task(service.run("ann", None, program))
        looks = 0
        while not task.done():
            await service.session_info("ann", None)
            await service.list_sessions("ann")
            looks += 1
        with pytest.raises(EngineError):
            await task
        assert looks > 2
        for name in ("x", "y"):
            tensor, _ = await service.query("ann", None, {"do": "read", "ref": name}, "all")
            assert tensor.version == 0
            assert not tensor.values.any()


@asynchronous
async def test_a_changed_seed_and_default_dtype() -> None:
    async with serving(factory=REAL) as service:
        await service.create_session("ann", {"name": "x", "seed": 1234})
        rand = {"steps": [{"op": "randn", "args": {"size": [3]}, "out": "r"}], "return": ["r"]}
        first = (await service.run("ann", "x", rand))[0]["results"]["r"]
        await service.patch_session("ann", "x", {"seed": 1234, "default_dtype": "float64"})
        again = (await service.run("ann", "x", rand))[0]["results"]["r"]
        assert (first.dtype, again.dtype) == ("float32", "float64")
        await service.patch_session("ann", "x", {"seed": 1234, "default_dtype": "float32"})
        third = (await service.run("ann", "x", rand))[0]["results"]["r"]
        assert np.array_equal(first.values, third.values)
        info = await service.session_info("ann", "x")
        assert (info["seed"], info["default_dtype"]) == (1234, "float32")


def test_the_catalogue_lists_every_operation_once() -> None:
    entries = Service("inline", limits=LIMITS, factory=FACTORY).catalogue()
    names = [entry["name"] for entry in entries]
    assert "add" in names
    assert len(names) == len(set(names))
    assert all({"params", "operation_id", "example"} <= entry.keys() for entry in entries)
