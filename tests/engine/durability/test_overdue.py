"""A step that does not end: its worker is killed, its caller is told why, and everybody else's calls are run again."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError, Gone, Invalid, OutOfTime, Unavailable
from engine.service import Limits, Service
from engine.workers import overdue
from tests.engine.durability.test_service import ADD, LIMITS, X, step, until, values
from tests.engine.workers.fakes import asynchronous

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers in processes need Unix sockets")

# Five seconds and more in LAPACK, of which Python sees nothing.
ENDLESS = {"steps": [step("rand", "a", size=[2000, 2000]), step("linalg.eig", ["w", "v"], A="a")], "return": []}


def endless() -> dict[str, Any]:
    return {**ENDLESS, "steps": list(ENDLESS["steps"])}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "GRACE", 0.5)
    monkeypatch.setattr(overdue, "LOOK", 0.1)


def service(data_dir: Path | None, **limits: Any) -> Service:
    return Service("cpu:1", limits=Limits(**{**LIMITS, "max_seconds": 0.5, **limits}), threads=1, data_dir=data_dir)


async def error_of(call: Awaitable[Any]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await call
    return caught.value


@asynchronous
async def test_the_caller_is_told_and_the_others_notice_a_delay_alone(tmp_path: Path) -> None:
    house = service(tmp_path)
    await house.start()
    try:
        for owner in ("ann", "bob"):
            await house.run(owner, None, X)
        stuck = asyncio.create_task(house.run("ann", None, endless()))
        await asyncio.sleep(0.3)
        behind = asyncio.create_task(house.run("ann", None, dict(ADD)))
        others = [asyncio.create_task(house.run("bob", None, dict(ADD))) for _ in range(2)]
        error = await error_of(stuck)
        assert isinstance(error, OutOfTime)
        assert error.code == "step-overdue"
        assert error.hint is not None
        assert (await error_of(behind)).code == "not-applied"
        found = [reply["results"]["x"].values.tolist() for reply, _ in await asyncio.gather(*others)]
        assert found == [[2.0, 3.0], [3.0, 4.0]]
        assert await values(house) == [1.0, 2.0], "as it was before"
        (worker,) = house.info()["workers"]
        assert worker["restarts"] == 1
        assert "could not be interrupted" in worker["last_exit"]
        # A program that does so twice is not taken a third time.
        assert isinstance(await error_of(house.run("ann", None, endless())), OutOfTime)
        assert isinstance(await error_of(house.run("ann", None, endless())), Invalid)
        await house.run("ann", None, dict(ADD))
        assert await values(house) == [2.0, 3.0]
    finally:
        await house.close()


@asynchronous
async def test_a_session_that_begins_with_such_a_step_is_there_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = service(tmp_path)
    await house.start()
    try:
        with caplog.at_level(logging.ERROR):
            assert (await error_of(house.run("ann", None, endless()))).code == "step-overdue"
        await house.run("ann", None, dict(X))
        assert await values(house) == [1.0, 2.0]
        assert "never retrieved" not in caplog.text
    finally:
        await house.close()


@asynchronous
async def test_a_job_with_such_a_step_fails_and_is_not_tried_again(tmp_path: Path) -> None:
    house = service(tmp_path)
    await house.start()
    try:
        job, _ = await house.submit("ann", None, endless(), about={})
        waiting, _ = await house.submit("bob", None, dict(X), about={})
        found: dict[str, Any] = {}
        for _ in range(300):
            try:
                found = await house.job("ann", job["job"])
            except Unavailable:
                found = {}
            if found.get("problem"):
                break
            await asyncio.sleep(0.1)
        assert (found["state"], found["problem"]["code"]) == ("failed", "step-overdue")
        assert house.info()["workers"][0]["restarts"] == 1
        for _ in range(500):
            other = await house.job("bob", waiting["job"])
            if other["state"] == "done":
                break
            await asyncio.sleep(0.02)
        assert other["state"] == "done"
    finally:
        await house.close()


@asynchronous
async def test_long_programs_of_short_steps_are_not_mistaken_for_it(tmp_path: Path) -> None:
    house = service(tmp_path, max_seconds=0.2)
    await house.start()
    try:
        spinning = {"steps": [{"repeat": 1_000_000, "steps": [step("rand", "a", size=[10])]}], "return": []}
        for _ in range(3):
            assert (await error_of(house.run("ann", None, dict(spinning)))).code == "time-limit"
        assert house.info()["workers"][0]["restarts"] == 0
    finally:
        await house.close()


@asynchronous
async def test_where_sessions_would_be_lost_it_is_said_and_the_step_has_longer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdue, "PATIENCE", 1000)
    house = service(None)
    await house.start()
    try:
        with caplog.at_level(logging.ERROR, "curlgrad.supervisor"):
            stuck = asyncio.create_task(house.run("ann", None, endless()))
            await until(lambda: bool(caplog.records))
        assert "if it still runs after" in caplog.text
        assert house.info()["workers"][0]["restarts"] == 0
        stuck.cancel()
    finally:
        await house.close()


@asynchronous
async def test_a_step_that_never_ends_is_ended_with_all_that_is_in_memory_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdue, "GRACE", 0.1)
    monkeypatch.setattr(overdue, "PATIENCE", 2)
    house = service(None)
    await house.start()
    try:
        with caplog.at_level(logging.ERROR):
            await house.run("bob", None, dict(X))
            stuck = asyncio.create_task(house.run("ann", None, endless()))
            await asyncio.sleep(0.3)
            read = asyncio.create_task(house.query("bob", None, {"do": "read", "ref": "x"}))
            error = await error_of(stuck)
            assert isinstance(error, Unavailable)
            assert error.code == "outcome-unknown"
            assert "could not be interrupted" in error.detail
            assert (await error_of(read)).code == "not-applied"
            gone = await error_of(house.run("bob", None, dict(ADD)))
            assert isinstance(gone, Gone)
            assert gone.code == "session-lost"
            assert "could not be interrupted" in gone.detail
        assert len([row for row in caplog.records if "if it still runs after" in row.getMessage()]) == 1
        assert "never retrieved" not in caplog.text
        await until(lambda: house.info()["workers"][0]["state"] == "ready")
        assert house.info()["workers"][0]["restarts"] == 1
        await house.create_session("bob", {"name": "new"})
        await house.run("bob", "new", dict(X))
    finally:
        await house.close()
