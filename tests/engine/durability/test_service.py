"""The service with a data directory: deaths of workers, starts anew, sleep, leases, exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError, Gone, Invalid, Unavailable
from engine.service import Limits, Service
from tests.engine.programs import step
from tests.engine.workers.fakes import asynchronous

everywhere = pytest.mark.parametrize("workers", ["cpu:1", "inline"])
LIMITS = {"session_bytes": 64 << 20, "server_bytes": 256 << 20}
X = {"inputs": {"x": {"data": [1.0, 2.0]}}, "keep": {"x": "x"}, "return": ["x"]}
ADD = {"steps": [step("add_", input="x", other=1)], "return": ["x"]}


@asynccontextmanager
async def served(data: Path, workers: str = "cpu:1", **given: Any) -> AsyncIterator[Service]:
    limits = Limits(**{**LIMITS, **given.pop("limits", {})})
    service = Service(workers, limits=limits, threads=1, data_dir=data, **given)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def values(service: Service, ref: str = "x", session: str | None = None) -> list[float]:
    answer, _ = await service.query("ann", session, {"do": "read", "ref": ref}, "all")
    found: list[float] = answer.values.tolist()
    return found


def pid(service: Service, worker: int = 0) -> int:
    found: int = service.info()["workers"][worker]["pid"]
    return found


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def killed(service: Service) -> None:
    restarts = service.info()["workers"][0]["restarts"]
    os.kill(pid(service), signal.SIGKILL)
    await until(lambda: service.info()["workers"][0]["restarts"] > restarts and service.ready())


@everywhere
@asynchronous
async def test_sessions_outlive_the_server(workers: str, tmp_path: Path) -> None:
    async with served(tmp_path, workers) as service:
        assert service.info()["durability"] == "everysec"
        await service.run("ann", None, X)
        named = await service.create_session("ann", {"name": "lesson", "seed": 3, "default_dtype": "float64"})
        rand = {"steps": [step("rand", "r", size=[2])], "return": ["r"], "keep": {"r": "r"}}
        first, _ = await service.run("ann", "lesson", rand, "all")
        await service.patch_session("ann", "lesson", {"name": "renamed"})
        gone = await service.create_session("ann", {"name": "gone"})
        await service.delete_session("ann", "gone")
        before = await service.list_sessions("ann")
        tag = (await service.query("ann", None, {"do": "read", "ref": "x"}))[0].etag
    for _ in range(2):
        async with served(tmp_path, workers) as service:
            after = await service.list_sessions("ann")
            for one in (*before["sessions"], *after["sessions"]):
                one.pop("last_used", None)
            assert after == before
            assert await values(service) == [1.0, 2.0]
            assert (await service.query("ann", None, {"do": "read", "ref": "x"}))[0].etag == tag
            assert await values(service, "r", "renamed") == first["results"]["r"].values.tolist()
            assert (await service.session_info("ann", named["id"]))["name"] == "renamed"
            for ref in ("gone", gone["id"], "lesson"):
                with pytest.raises(EngineError, match="no session"):
                    await service.session_info("ann", ref)
            with pytest.raises(EngineError):
                await service.session_info("bob", named["id"])


@asynchronous
async def test_other_workers_take_over(tmp_path: Path) -> None:
    async with served(tmp_path, "cpu:2") as service:
        for name in ("a", "b", "c"):
            await service.create_session("ann", {"name": name})
            await service.run("ann", name, X)
    async with served(tmp_path, "inline") as service:
        assert [one["name"] for one in (await service.list_sessions("ann"))["sessions"]] == ["a", "b", "c"]
        for name in ("a", "b", "c"):
            await service.run("ann", name, ADD)
            assert await values(service, session=name) == [2.0, 3.0]
    assert not (tmp_path / "cpu-0").exists()
    assert not (tmp_path / "cpu-1").exists()


@asynchronous
async def test_two_servers_cannot_share_a_directory(tmp_path: Path) -> None:
    async with served(tmp_path, "inline"):
        with pytest.raises(RuntimeError, match=f"in use by another server .process {os.getpid()}."):
            async with served(tmp_path, "inline"):
                pass
    async with served(tmp_path, "inline"):
        pass


@asynchronous
async def test_kill_9_of_an_idle_worker_loses_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        await service.run("ann", None, ADD)
        before = await service.session_info("ann", None)
        os.kill(pid(service), signal.SIGKILL)
        await service.run("ann", None, ADD)  # which waits for the new worker
        assert await values(service) == [3.0, 4.0]
        assert (await service.session_info("ann", None))["id"] == before["id"]
        assert service.info()["workers"][0]["restarts"] == 1


@asynchronous
async def test_kill_9_during_a_program(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        for name in ("mine", "theirs"):
            await service.create_session("ann", {"name": name})
            await service.run("ann", name, X)
        long = {"steps": [{"repeat": 1_000_000, "steps": [step("add_", input="x", other=1)]}], "return": ["x"]}
        short = {"steps": [{"repeat": 50_000, "steps": [step("add_", input="x", other=1)]}], "return": ["x"]}
        running = asyncio.create_task(service.run("ann", "mine", long))
        other = asyncio.create_task(service.run("ann", "theirs", short))
        behind = asyncio.create_task(service.run("ann", "mine", ADD))
        await asyncio.sleep(0.2)
        os.kill(pid(service), signal.SIGKILL)
        results = await asyncio.gather(running, other, behind, return_exceptions=True)
        # Which of the two ran at that moment is chance: its session is told, the other's is run again.
        mine, theirs, after = results
        assert isinstance(mine, Unavailable) != isinstance(theirs, Unavailable) or not isinstance(mine, Unavailable)
        for name, outcome, more in (("mine", mine, 1_000_000), ("theirs", theirs, 50_000)):
            x = 1.0 + (0 if isinstance(outcome, Exception) else more)
            x += 1 if name == "mine" and not isinstance(after, Exception) else 0
            assert (await values(service, session=name))[0] == x
            if isinstance(outcome, Exception):
                assert isinstance(outcome, Unavailable)
                assert outcome.code == "not-applied"


@asynchronous
async def test_an_answer_that_was_not_sent_is_found_in_the_journal(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        big = {"steps": [step("full", "b", size=[40_000], fill_value=2.5)], "return": ["b"], "keep": {"b": "b"}}
        slot = service._supervisor._slots["cpu-0"]
        assert slot.transport is not None
        slot.transport.on_message = lambda message: None  # the answers are lost on their way
        calls = [asyncio.create_task(service.run("ann", None, program, "all")) for program in (ADD, big)]
        await asyncio.sleep(0.5)
        os.kill(pid(service), signal.SIGKILL)
        (added, _), (made, _) = await asyncio.gather(*calls)
        assert added["results"]["x"].values.tolist() == [2.0, 3.0]
        assert made["results"]["b"].values.tolist() == [2.5] * 40_000
        assert await values(service) == [2.0, 3.0], "done once"


@asynchronous
async def test_a_program_that_killed_its_worker_twice_is_refused(tmp_path: Path) -> None:
    deadly = {"steps": [{"repeat": 1_000_000, "steps": [step("add_", input="x", other=1)]}]}
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        for _ in range(2):
            running = asyncio.create_task(service.run("ann", None, {"steps": list(deadly["steps"])}))
            await asyncio.sleep(0.2)
            await killed(service)
            with pytest.raises(Unavailable) as caught:
                await running
            assert caught.value.code == "not-applied"
        with pytest.raises(Invalid, match="ended its worker 2 times") as refused:
            await service.run("ann", None, {"steps": list(deadly["steps"])})
        assert refused.value.code == "killed-worker"
        await service.run("ann", None, ADD)
        assert await values(service) == [2.0, 3.0]


# ---------------------------------------------------------------- exactly once


@everywhere
@pytest.mark.parametrize("durable", [True, False])
@asynchronous
async def test_the_same_key_does_it_once(workers: str, durable: bool, tmp_path: Path) -> None:
    service = Service(workers, limits=Limits(**LIMITS), threads=1, data_dir=tmp_path if durable else None)
    await service.start()
    try:
        await service.run("ann", None, X)
        answers = await asyncio.gather(*(service.run("ann", None, dict(ADD), once=("k", "d")) for _ in range(5)))
        assert {answer["results"]["x"].etag for answer, _ in answers} == {answers[0][0]["results"]["x"].etag}
        assert await values(service) == [2.0, 3.0]
        with pytest.raises(Invalid) as caught:
            await service.run("ann", None, dict(ADD), once=("k", "other"))
        assert caught.value.code == "idempotency-key-reused"
        await service.run("ann", None, dict(ADD), once=("l", "d"))
        again, _ = await service.run("ann", None, dict(ADD), once=("k", "d"))
        assert again["results"]["x"].values.tolist() == [2.0, 3.0], "what it was answered then"
        made = [await service.create_session("ann", {"seed": 1}, ("k", "d")) for _ in range(2)]
        assert made[0]["id"] == made[1]["id"]
    finally:
        await service.close()
    if not durable:
        return
    async with served(tmp_path, workers) as service:
        again, _ = await service.run("ann", None, dict(ADD), once=("k", "d"))
        assert again["results"]["x"].values.tolist() == [2.0, 3.0]
        assert await values(service) == [3.0, 4.0]
        assert (await service.create_session("ann", {"seed": 1}, ("k", "d")))["id"] == made[0]["id"]


@asynchronous
async def test_a_refused_call_may_be_sent_again_with_its_key(tmp_path: Path) -> None:
    async with served(tmp_path, "inline") as service:
        with pytest.raises(EngineError):
            await service.run("ann", None, dict(ADD), once=("k", "d"))
        await service.run("ann", None, X)
        await service.run("ann", None, dict(ADD), once=("k", "d"))
        assert await values(service) == [2.0, 3.0]


@asynchronous
async def test_answers_over_a_mebibyte_come_again_without_values(tmp_path: Path) -> None:
    async with served(tmp_path, "inline") as service:
        for size, kept in ((100_000, True), (300_000, False)):
            program = {"steps": [step("ones", "b", size=[size])], "return": ["b"], "keep": {"b": "b"}}
            first, _ = await service.run("ann", None, dict(program), "all", once=(f"k{size}", "d"))
            again, _ = await service.run("ann", None, dict(program), "all", once=(f"k{size}", "d"))
            assert first["results"]["b"].etag == again["results"]["b"].etag
            assert (again["results"]["b"].values is not None) == kept


# ---------------------------------------------------------------- sleep and leases


@everywhere
@asynchronous
async def test_sessions_outnumber_memory(workers: str, tmp_path: Path) -> None:
    limits = {"session_bytes": 8 << 20, "server_bytes": 10 << 20}
    async with served(tmp_path, workers, limits=limits) as service:
        for i in range(8):
            await service.create_session("ann", {"name": f"s{i}"})
            made = {"steps": [step("full", "x", size=[1 << 20], fill_value=i)], "keep": {"x": "x"}}  # 4 MiB
            await service.run("ann", f"s{i}", made)
        for i in range(8):
            part, _ = await service.query("ann", f"s{i}", {"do": "read", "ref": "x", "index": "5"}, "all")
            assert part.values == i
        assert len((await service.list_sessions("ann"))["sessions"]) == 8


@asynchronous
async def test_idle_sessions_sleep_and_wake(tmp_path: Path) -> None:
    async with served(tmp_path, "inline", limits={"idle_s": 0.0}) as service:
        await service.run("ann", None, X)
        info = await service.session_info("ann", None)
        await until(lambda: len(list((tmp_path / "inline" / "snapshots").glob("*.safetensors"))) == 1)
        assert (await service.session_info("ann", None))["bytes"] == info["bytes"]
        await service.run("ann", None, ADD)
        assert await values(service) == [2.0, 3.0]
    async with served(tmp_path, "inline") as service:
        assert await values(service) == [2.0, 3.0]


@asynchronous
async def test_a_lease_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.workers.worker.LEASE_GRACE", -0.9)
    workers = "inline"  # whose grace period is that of this process
    async with served(tmp_path, workers) as service:
        made = await service.create_session("ann", {"name": "short", "lease_s": 1})
        assert made["expires_at"] == made["last_used"] + 1
        await service.patch_session("ann", made["id"], {"lease_s": None})
        assert (await service.session_info("ann", made["id"]))["expires_at"] is None
        await service.patch_session("ann", made["id"], {"lease_s": 1})
        for _ in range(500):
            if not (await service.list_sessions("ann"))["sessions"]:
                break
            await asyncio.sleep(0.02)
        with pytest.raises(Gone, match="lease of 1 s") as caught:
            await service.session_info("ann", made["id"])
        assert caught.value.code == "session-expired"
        with pytest.raises(EngineError, match="no session"):
            await service.session_info("bob", made["id"])
    async with served(tmp_path, workers) as service:
        for ref in ("short", made["id"]):
            with pytest.raises(Gone, match="lease of 1 s"):
                await service.session_info("ann", ref)
        assert (await service.list_sessions("ann"))["sessions"] == []


@pytest.mark.slow
@asynchronous
async def test_a_gigabyte_comes_back(tmp_path: Path) -> None:
    """One record of a gibibyte, which is written without a copy and read without one."""
    limits = {"session_bytes": 2 << 30, "server_bytes": 4 << 30}
    made = {"steps": [step("full", "x", size=[1 << 28], fill_value=0.5)], "keep": {"x": "x"}}
    async with served(tmp_path, "inline", limits=limits) as service:
        await service.run("ann", None, made)
    async with served(tmp_path, "inline", limits=limits) as service:
        part, _ = await service.query("ann", None, {"do": "read", "ref": "x", "index": f"{(1 << 28) - 1}"}, "all")
        assert part.values == 0.5
