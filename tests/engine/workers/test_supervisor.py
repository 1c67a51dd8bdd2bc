"""Real workers, in threads and in processes: calls, deaths, restarts, memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.errors import (
    Bug,
    EngineError,
    Gone,
    Invalid,
    NoSuchDevice,
    NoSuchSession,
    OutOfMemory,
    Unavailable,
)
from engine.limits import Limits
from engine.workers import lines, transports
from engine.workers import supervisor as module
from engine.workers.messages import BadMessage, Timing
from engine.workers.plans import cores, plan_workers
from engine.workers.registry import Record
from engine.workers.supervisor import Supervisor
from tests.engine.workers.fakes import FACTORY, LIMITS, asynchronous, process_facts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets")

ROOT = Path(__file__).resolve().parents[3]


@contextlib.asynccontextmanager
async def workers(spec: str = "cpu:1", limits: Limits = LIMITS, factory: str = FACTORY) -> AsyncIterator[Supervisor]:
    """Started workers, whose processes are gone afterwards."""
    supervisor = Supervisor(plan_workers(spec), limits, factory=factory, threads=1)
    await supervisor.start()
    pids = {one["pid"] for one in supervisor.workers()}
    try:
        yield supervisor
    finally:
        pids |= {one["pid"] for one in supervisor.workers()}
        await supervisor.close()
        left = [one for one in pids - {None, os.getpid()} if exists(one)]
        assert not left, "processes are left, or were not waited for"


async def run(supervisor: Supervisor, record: Record, *steps: str | dict[str, Any], dry: bool = False) -> Any:
    program = {"steps": [{"op": step} if isinstance(step, str) else step for step in steps]}
    message = {"do": "run", "program": program, "values": "auto", "dry_run": dry, "explain": False}
    return (await supervisor.call(record, message, changes=not dry))[0]["results"]


async def ask(supervisor: Supervisor, record: Record, **q: Any) -> Any:
    return (await supervisor.call(record, {"do": "query", "q": q, "values": "auto"}, changes=False))[0]


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits for something that other processes bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.005)


def pid(supervisor: Supervisor, i: int = 0) -> int:
    found: int = supervisor.workers()[i]["pid"]
    return found


def exists(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def children() -> list[str]:
    """Processes that threads of this one started and nobody waited for."""
    return [one for task in Path("/proc/self/task").glob("*/children") for one in task.read_text().split()]


def mapped(process: int) -> int:
    """How many mappings of passed arrays a process has."""
    return Path(f"/proc/{process}/maps").read_text().count("memfd:curlgrad")


def sleeping(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S"


everywhere = pytest.mark.parametrize("spec", ["inline", "cpu:1"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


# ---------------------------------------------------------------- calls


@everywhere
@asynchronous
async def test_calls(spec: str) -> None:
    async with workers(spec) as supervisor:
        assert supervisor.ready()
        record = await supervisor.find("ann", None)
        program = {"steps": [{"op": "sleep", "args": {"s": 0.02}}]}
        message = {"do": "run", "program": program, "values": "auto", "dry_run": False, "explain": False}
        reply, timing = await supervisor.call(record, message, changes=True)
        assert reply["steps_run"] == 1
        assert isinstance(timing, Timing)
        assert 20 <= timing.run_ms < 500
        assert 0 <= timing.queue_ms < 500
        with pytest.raises(EngineError) as caught:
            await run(supervisor, record, "add", "refuse")
        assert (type(caught.value).__name__, caught.value.param) == ("NoSuchTensor", "input")
        assert await ask(supervisor, record, do="read", ref="n") is None
    assert not supervisor.ready()


@everywhere
@asynchronous
async def test_arrays_there_and_back(spec: str) -> None:
    async with workers(spec) as supervisor:
        record = await supervisor.find("ann", None)
        for size in (3, 100_000):
            data = np.arange(float(size))
            keep = {"op": "keep", "args": {"name": "x", "data": ArrayData(data, "float64")}}
            back = await run(supervisor, record, keep, {"op": "return", "args": {"name": "x"}})
            assert np.array_equal(back["x"].values, np.arange(float(size)))
            if back["writable"]:
                await run(supervisor, record, {"op": "scale", "args": {"name": "x"}})
                assert back["x"].values[2] == 2.0, "an answer does not change with its tensor"
                assert data[2] == 2.0, "nor does what was given"
            if size > 3:
                assert not back["x"].values.flags.writeable
                assert back["writable"] == (spec != "inline")


@everywhere
@asynchronous
async def test_calls_keep_the_order_in_which_they_were_made(spec: str) -> None:
    """Big arrays are copied in other threads, and nothing may overtake them meanwhile."""
    async with workers(spec) as supervisor:
        record = await supervisor.find("ann", None)
        big = {"op": "keep", "args": {"name": "x", "data": ArrayData(np.zeros(400_000), "float64")}}
        calls = [
            run(supervisor, record, *([big] if i % 3 == 0 else []), "add", "number", {"op": "noop", "times": i % 7})
            for i in range(60)
        ]
        assert [reply["n"] for reply in await asyncio.gather(*calls)] == list(range(1, 61))


@everywhere
@asynchronous
async def test_the_default_session_is_made_once(spec: str) -> None:
    async with workers(spec) as supervisor:

        async def use() -> None:
            await run(supervisor, await supervisor.find("ann", None), "add")

        await asyncio.gather(*(use() for _ in range(50)))
        record = await supervisor.find("ann", "default")
        assert await ask(supervisor, record, do="read", ref="n") == 50
        assert supervisor.registry.count(record.worker) == 1
        assert await supervisor.find("ann", record.id) is record


@asynchronous
async def test_a_default_session_that_cannot_be_made() -> None:
    async with workers(factory="tests.engine.workers.fakes:RefusingSession") as supervisor:
        for _ in range(2):
            record = await supervisor.find("ann", None)
            with pytest.raises(OutOfMemory, match="no room"):
                await run(supervisor, record, "add")
            assert supervisor.registry.find("ann", "default") is None


@everywhere
@asynchronous
async def test_cancelling_the_wait_cancels_the_program(spec: str) -> None:
    async with workers(spec) as supervisor:
        record = await supervisor.find("ann", None)
        long = {"op": "sleep", "args": {"s": 0.002}, "times": 100_000}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run(supervisor, record, "add", long), 0.1)
        begin = time.monotonic()
        assert await ask(supervisor, record, do="read", ref="n") is None
        assert time.monotonic() - begin < 20, "it waited for the program, which takes minutes"
        await until(lambda: supervisor.workers()[0]["calls"] == 0)


@linux
@asynchronous
async def test_cancelling_while_a_big_array_is_being_copied() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        await run(supervisor, record, "noop")
        before = process_facts()
        data = ArrayData(np.zeros(8_000_000), "float64")
        task = asyncio.create_task(run(supervisor, record, {"op": "keep", "args": {"name": "x", "data": data}}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await run(supervisor, record, "noop")
        await until(lambda: process_facts()["fds"] == before["fds"])


@everywhere
@asynchronous
async def test_a_modest_owner_is_not_held_up_by_a_greedy_one(spec: str) -> None:
    async with workers(spec) as supervisor:
        greedy = [await supervisor.open("greedy", None, None, None, "float32") for _ in range(10)]
        modest = await supervisor.find("modest", None)
        spin = {"op": "spin", "args": {"s": 0.001}}
        tasks = [asyncio.create_task(run(supervisor, one, {**spin, "times": 50_000})) for one in greedy]
        await asyncio.sleep(0.05)
        message = {
            "do": "run",
            "program": {"steps": [{**spin, "times": 100}]},
            "values": "auto",
            "dry_run": False,
            "explain": False,
        }
        _, timing = await supervisor.call(modest, message, changes=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Half of the worker's time, not an eleventh; with room for a busy machine.
        assert timing.queue_ms < 3 * timing.run_ms + 200


@asynchronous
async def test_information_does_not_wait_for_programs() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        task = asyncio.create_task(run(supervisor, record, {"op": "spin", "args": {"s": 0.001}, "times": 100_000}))
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        infos = await supervisor.infos([record])
        assert infos[record.id]["tensors"] == 0
        assert (await ask(supervisor, record, do="info"))["device"] == "cpu"
        assert time.monotonic() - begin < 20, "it waited for the program, which takes minutes"
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@everywhere
@asynchronous
async def test_a_full_queue(spec: str) -> None:
    async with workers(spec) as supervisor:
        record = await supervisor.find("ann", None)
        first = asyncio.create_task(run(supervisor, record, {"op": "sleep", "args": {"s": 0.1}}))
        await asyncio.sleep(0.05)
        replies = await asyncio.gather(*(run(supervisor, record, "add") for _ in range(150)), return_exceptions=True)
        refused = [reply for reply in replies if isinstance(reply, Unavailable)]
        assert 50 <= len(refused) <= 51
        assert {error.code for error in refused} == {"queue-full"}
        await first
        assert await ask(supervisor, record, do="read", ref="n") == 150 - len(refused)


@pytest.mark.parametrize("reply", [{}, {"ok": 1}, {"error": {}}, {"error": [1]}, {"error": {"class": "Gone"}}], ids=str)
@asynchronous
async def test_a_reply_that_lacks_something_ends_its_call_alone(reply: dict[str, Any]) -> None:
    async with workers("inline") as supervisor:
        record = await supervisor.find("ann", None)
        call = asyncio.create_task(run(supervisor, record, {"op": "sleep", "args": {"s": 0.05}}))
        await asyncio.sleep(0.01)
        (slot,) = supervisor._slots.values()
        number = max(slot.pending)
        expected = slot.pending[number]
        supervisor._replied(slot, {"id": number, **reply})
        with pytest.raises(Bug):
            await call
        with pytest.raises(BadMessage):
            supervisor._replied(slot, {"id": number, **reply})
        slot.pending[number] = expected  # the real reply is still to come
        await run(supervisor, record, "noop")


@asynchronous
async def test_nesting_beyond_messages() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    async with workers("inline") as supervisor:
        record = await supervisor.find("ann", None)
        with pytest.raises(Invalid):
            await run(supervisor, record, {"op": "noop", "args": {"x": deep}})
        await run(supervisor, record, "noop")
        assert supervisor.workers()[0]["calls"] == 0


def test_another_event_loop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with workers() as supervisor:
            record = await supervisor.find("ann", None)
            data = ArrayData(np.ones(300_000), "float64")
            keep = {"op": "keep", "args": {"name": "x", "data": data}}
            back = await run(supervisor, record, keep, {"op": "return", "args": {"name": "x"}})
            assert back["x"].values.sum() == 300_000
            os.kill(pid(supervisor), signal.SIGKILL)
            await until(lambda: supervisor.workers()[0]["restarts"] == 1)
            with pytest.raises(Gone):
                await supervisor.find("ann", record.id)

    uvloop.run(main())


# ---------------------------------------------------------------- sessions


@asynchronous
async def test_sessions_go_where_there_is_most_room() -> None:
    async with workers("cpu:2") as supervisor:
        records = [await supervisor.open("ann", None, "cpu", 1, "float64") for _ in range(6)]
        assert [record.worker for record in records] == ["cpu-0", "cpu-1"] * 3
        for record in records[::2]:
            await supervisor.close_session("ann", record.id)
        more = [await supervisor.open("ann", None, None, None, "float32") for _ in range(3)]
        assert {record.worker for record in more} == {"cpu-0"}


@asynchronous
async def test_devices() -> None:
    async with workers("practice-cuda") as supervisor:
        assert supervisor.devices() == ["cpu", "cuda:0"]
        for asked, got in [(None, "cpu"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0")]:
            record = await supervisor.open("ann", None, asked, None, "float32")
            assert (record.device, (await ask(supervisor, record, do="info"))["device"]) == (got, got)
        with pytest.raises(NoSuchDevice) as caught:
            await supervisor.open("ann", None, "cuda:1", None, "float32")
        assert caught.value.hint is not None
        assert caught.value.hint.facts["devices"] == ["cpu", "cuda:0"]


@everywhere
@asynchronous
async def test_closing_a_session(spec: str) -> None:
    async with workers(spec) as supervisor:
        record = await supervisor.open("ann", "x", None, None, "float32")
        ran = asyncio.create_task(run(supervisor, record, "add", "number"))
        await asyncio.sleep(0)
        await supervisor.close_session("ann", "x")
        assert (await ran) == {"n": 1}, "what came before is done before"
        with pytest.raises(NoSuchSession):
            await supervisor.find("ann", "x")
        await supervisor.close_session("ann", "x")
        await supervisor.close_session("ann", record.id)
        for owner, ref in (("ann", "y"), ("bob", "x"), ("bob", record.id)):
            with pytest.raises(NoSuchSession):
                await supervisor.close_session(owner, ref)
        await supervisor.close_session("ann", "default")


@asynchronous
async def test_a_session_that_cannot_be_made_leaves_no_trace() -> None:
    async with workers() as supervisor:
        with pytest.raises(EngineError, match="cannot be made"):
            await supervisor.open("ann", "x", None, 666, "float32")
        assert (await supervisor.open("ann", "x", None, 1, "float32")).name == "x"
        assert supervisor.registry.count("cpu-0") == 1


# ---------------------------------------------------------------- deaths


@asynchronous
async def test_kill_9_of_an_idle_worker() -> None:
    async with workers("cpu:2") as supervisor:
        mine = await supervisor.find("ann", None)
        named = await supervisor.open("bob", "x", None, None, "float32")
        third = await supervisor.open("ann", "y", None, None, "float32")
        assert (mine.worker, named.worker, third.worker) == ("cpu-0", "cpu-1", "cpu-0")
        old = pid(supervisor)
        os.kill(old, signal.SIGKILL)
        await until(lambda: supervisor.workers()[0]["restarts"] == 1 and supervisor.workers()[0]["state"] == "ready")
        assert pid(supervisor) != old
        assert supervisor.ready()
        with pytest.raises(Gone, match="SIGKILL") as caught:
            await supervisor.find("ann", None)
        assert caught.value.code == "session-lost"
        again = await supervisor.find("ann", None)
        assert again.id != mine.id
        assert (await run(supervisor, again, "add", "number")) == {"n": 1}
        for _ in range(2):
            with pytest.raises(Gone):
                await supervisor.find("ann", "y")
        with pytest.raises(NoSuchSession):
            await supervisor.find("bob", "y")
        assert await run(supervisor, await supervisor.find("bob", "x"), "add", "number") == {"n": 1}


@asynchronous
async def test_kill_9_during_a_program() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        other = await supervisor.open("bob", None, None, None, "float32")
        spin = {"op": "spin", "args": {"s": 0.001}, "times": 100_000}
        program = asyncio.create_task(run(supervisor, record, spin))
        rehearsal = asyncio.create_task(run(supervisor, other, spin, dry=True))
        read = asyncio.create_task(ask(supervisor, record, do="read", ref="n"))
        await asyncio.sleep(0.1)
        os.kill(pid(supervisor), signal.SIGKILL)
        results = await asyncio.gather(program, rehearsal, read, return_exceptions=True)
        assert [type(one) for one in results] == [Unavailable] * 3
        assert [one.code for one in results if isinstance(one, Unavailable)] == [
            "outcome-unknown",
            "not-applied",
            "not-applied",
        ]
        with pytest.raises(Unavailable) as caught:
            await run(supervisor, record, "add")
        assert caught.value.code == "not-applied", "of a session that is lost, by someone who still holds its record"
        assert await run(supervisor, await supervisor.find("carl", None), "add", "number") == {"n": 1}


@asynchronous
async def test_a_worker_that_ends_itself_mid_program() -> None:
    async with workers() as supervisor:
        for step, why in [
            ({"op": "exit", "args": {"status": 7}}, "status 7"),
            ({"op": "die", "args": {"signal": int(signal.SIGSEGV)}}, "SIGSEGV"),
        ]:
            record = await supervisor.open("ann", None, None, None, "float32")
            with pytest.raises(Unavailable, match=why) as caught:
                await run(supervisor, record, "add", step)
            assert caught.value.code == "outcome-unknown"


@asynchronous
async def test_what_was_not_sent_was_not_applied() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        await run(supervisor, record, "noop")
        process = pid(supervisor)
        os.kill(process, signal.SIGSTOP)
        big = {"op": "noop", "args": {"text": "x" * 3_000_000}}
        calls = [asyncio.create_task(run(supervisor, record, step)) for step in ("add", big, "add", big)]
        await asyncio.sleep(0.05)
        os.kill(process, signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        codes = [one.code for one in results if isinstance(one, Unavailable)]
        assert codes == ["outcome-unknown", "outcome-unknown", "not-applied", "not-applied"]


@asynchronous
async def test_a_worker_that_does_not_read_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MAX_WAITING", 5_000_000)
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        await run(supervisor, record, "noop")
        process = pid(supervisor)
        os.kill(process, signal.SIGSTOP)
        big = {"op": "noop", "args": {"text": "x" * 1_000_000}}
        calls = [asyncio.create_task(run(supervisor, record, "add", big)) for _ in range(12)]
        await asyncio.sleep(0.05)
        os.kill(process, signal.SIGCONT)
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in results if isinstance(one, Unavailable)]
        assert 4 <= len(refused) <= 8
        assert {one.code for one in refused} == {"not-applied"}
        assert await ask(supervisor, record, do="read", ref="n") == 12 - len(refused)


@asynchronous
async def test_a_worker_that_babbles_is_stopped() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        process = pid(supervisor)
        with pytest.raises(Unavailable, match="no message"):
            await run(supervisor, record, "babble", {"op": "sleep", "args": {"s": 0.01}, "times": 10_000})
        assert not exists(process)
        with pytest.raises(Gone):
            await supervisor.find("ann", record.id)
        assert await run(supervisor, await supervisor.find("bob", None), "add", "number") == {"n": 1}


@everywhere
@asynchronous
async def test_calls_under_way_when_the_service_closes(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "_GRACE", 0.2)
    supervisor = Supervisor(plan_workers(spec), LIMITS, factory=FACTORY)
    await supervisor.start()
    record = await supervisor.find("ann", None)
    # One step that does not end in time: a process is killed, a thread is left behind.
    call = asyncio.create_task(run(supervisor, record, {"op": "sleep", "args": {"s": 6.0}}))
    await asyncio.sleep(0.1)
    begin = time.monotonic()
    await supervisor.close()
    assert time.monotonic() - begin < 5
    with pytest.raises(Unavailable):
        await call
    with pytest.raises(EngineError):
        await supervisor.find("bob", None)
    await supervisor.close()


@asynchronous
async def test_a_worker_that_cannot_start_is_said_at_once() -> None:
    supervisor = Supervisor(plan_workers("cpu:2"), LIMITS, factory="tests.nothing:Session")
    with pytest.raises(RuntimeError, match=r"worker cpu-.*nothing"):
        await supervisor.start()
    assert not supervisor.ready()
    assert [one["pid"] for one in supervisor.workers()] == [None, None]
    inline = Supervisor(plan_workers("inline"), LIMITS, factory="tests.nothing:Session")
    with pytest.raises(RuntimeError, match=r"worker inline.*nothing"):
        await inline.start()


@linux
@asynchronous
async def test_a_start_that_is_given_up_leaves_nothing() -> None:
    before, others = process_facts()["fds"], children()  # a server of other tests, say
    for patience in (0.0, 0.002, 0.02, 0.1):
        supervisor = Supervisor(plan_workers("cpu:2"), LIMITS, factory=FACTORY)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(supervisor.start(), patience)
        await supervisor.close()
        assert children() == others
    assert process_facts()["fds"] == before


@asynchronous
async def test_a_crash_loop_is_slow_and_seen_and_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(module, "FAILING", 3)
    broken = tmp_path / "broken"
    monkeypatch.setenv("FAKES_BROKEN", str(broken))
    async with workers() as supervisor:
        broken.touch()
        os.kill(pid(supervisor), signal.SIGKILL)
        await until(lambda: supervisor.workers()[0]["state"] == "restarting")
        assert not supervisor.ready()
        with pytest.raises(Unavailable) as caught:  # once it has died so often that it need not be waited for
            await supervisor.find("ann", None)
        assert caught.value.code == "not-applied"
        assert supervisor.workers()[0]["state"] == "failing"
        assert not supervisor.ready()
        assert "broken on purpose" in supervisor.workers()[0]["last_exit"]
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            await supervisor.find("ann", None)
        assert time.monotonic() - begin < 2, "there is nothing to wait for"
        broken.unlink()
        await until(supervisor.ready, 30)
        assert await run(supervisor, await supervisor.find("ann", None), "add", "number") == {"n": 1}


@asynchronous
async def test_calls_wait_for_a_worker_that_restarts() -> None:
    async with workers() as supervisor:
        os.kill(pid(supervisor), signal.SIGKILL)
        await until(lambda: not supervisor.ready())
        assert await run(supervisor, await supervisor.find("ann", None), "add", "number") == {"n": 1}


@linux
def test_workers_do_not_outlive_their_front(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from engine.workers.plans import plan_workers\nfrom engine.workers.supervisor import Supervisor\n"
        "from tests.engine.workers.fakes import FACTORY, LIMITS\n"
        "async def main():\n"
        "    supervisor = Supervisor(plan_workers('cpu:2'), LIMITS, factory=FACTORY)\n"
        "    await supervisor.start()\n"
        "    print(*(one['pid'] for one in supervisor.workers()), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        pids = front.stdout.readline().split()
        assert len(pids) == 2
        assert all(Path(f"/proc/{one}").exists() for one in pids)
        front.kill()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{one}").exists() for one in pids):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.01)


# ---------------------------------------------------------------- memory, descriptors, settings


@linux
@asynchronous
async def test_a_hundred_megabytes_there_and_back() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)
        await run(supervisor, record, "noop")
        data = np.random.default_rng(1).standard_normal(12_500_000)
        front, worker = process_facts(), await ask(supervisor, record, do="process")
        keep = {"op": "keep", "args": {"name": "x", "data": ArrayData(data, "float64")}}
        assert (await run(supervisor, record, keep))["writable"]
        held = await ask(supervisor, record, do="process")
        back = (await ask(supervisor, record, do="read", ref="x")).values
        assert np.array_equal(back, data)
        after_front, after_worker = process_facts(), await ask(supervisor, record, do="process")
        slack = 16 << 20
        assert held["anonymous"] - worker["anonymous"] < slack, "mapped, not copied"
        assert after_worker["anonymous"] - worker["anonymous"] < slack
        assert after_front["anonymous"] - front["anonymous"] < slack
        assert (after_front["maps"], after_worker["maps"]) == (1, 1)
        del back
        await run(supervisor, record, {"op": "free", "args": {"name": "x"}})
        assert process_facts()["maps"] == 0
        last = await ask(supervisor, record, do="process")
        assert (last["maps"], last["fds"]) == (0, worker["fds"]), "what was answered was the tensor's own memory"


@linux
@asynchronous
async def test_descriptors_do_not_leak() -> None:
    async with workers() as supervisor:
        record = await supervisor.find("ann", None)

        async def cycle() -> None:
            data = ArrayData(np.zeros(20_000), "float64")
            keep = {"op": "keep", "args": {"name": "x", "data": data}}
            await run(supervisor, record, keep, {"op": "return", "args": {"name": "x"}})
            answers = await ask(supervisor, record, do="many", count=100, numel=9000)
            assert answers[99].values[0] == 99.0
            del answers  # the traceback of an error keeps this frame
            with pytest.raises(EngineError):
                await run(supervisor, record, keep, "refuse")

        await cycle()
        front, worker = process_facts(), await ask(supervisor, record, do="process")
        for _ in range(20):
            await cycle()
        after = await ask(supervisor, record, do="process")
        assert (process_facts()["fds"], after["fds"]) == (front["fds"], worker["fds"])
        assert (process_facts()["maps"], after["maps"]) == (0, 1)


@linux
@asynchronous
async def test_an_idle_worker_holds_nothing_of_the_last_call() -> None:
    async with workers("cpu:1") as supervisor:
        record = await supervisor.find("ann", None)
        await run(supervisor, record, "noop")
        process = pid(supervisor)
        keep = {"op": "keep", "args": {"name": "x", "data": ArrayData(np.zeros(20_000), "float64")}}
        for steps in ([keep, {"op": "free", "args": {"name": "x"}}], [keep, "refuse"], [keep, "bug"]):
            with contextlib.suppress(EngineError):
                await run(supervisor, record, *steps)
            await until(lambda: sleeping(process))
            assert mapped(process) == 0


@linux
@asynchronous
async def test_the_hard_limit_behind_admission() -> None:
    async with workers(limits=replace(LIMITS, server_bytes=256 << 20)) as supervisor:
        record = await supervisor.find("ann", None)
        with pytest.raises(OutOfMemory):
            await run(supervisor, record, "add", {"op": "allocate", "args": {"bytes": 3 << 30}})
        await run(supervisor, record, {"op": "allocate", "args": {"bytes": 64 << 20}})
        assert await ask(supervisor, record, do="read", ref="n") is None


@asynchronous
async def test_threads_of_blas() -> None:
    for threads, expected in ((3, "3"), (None, str(max(1, cores())))):
        supervisor = Supervisor(plan_workers("cpu:1"), LIMITS, factory=FACTORY, threads=threads)
        await supervisor.start()
        try:
            record = await supervisor.find("ann", None)
            keys = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"]
            assert await ask(supervisor, record, do="environment", keys=keys) == dict.fromkeys(keys, expected)
        finally:
            await supervisor.close()
