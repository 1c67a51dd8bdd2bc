"""Jobs and the deaths of workers and servers: what was taken comes to its end, once."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.durability.files import File, Files
from engine.durability.jobs import JobFiles
from engine.durability.records import Damaged
from engine.errors import EngineError, NoSuchJob, OutOfMemory
from engine.service import Service
from tests.engine.durability.test_service import ADD, X, everywhere, killed, pid, served, values
from tests.engine.programs import step
from tests.engine.workers.fakes import asynchronous

ABOUT = {"n": 1}


def long(rounds: int) -> dict[str, Any]:
    """Adds to `x` so often."""
    return {"steps": [{"repeat": rounds, "steps": [step("add_", input="x", other=1)]}], "return": ["x"]}


async def submit(service: Service, program: dict[str, Any], **how: Any) -> str:
    job, _ = await service.submit("ann", None, program, about=ABOUT, **how)
    found: str = job["job"]
    return found


def kinds(data: Path) -> list[str]:
    """What the files of jobs are."""
    return [path.suffix for path in data.glob("*/jobs/*")]


async def ended(service: Service, job: str) -> dict[str, Any]:
    for _ in range(2000):
        found = await service.job("ann", job, result=True)
        if found["ended"] is not None:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it does not end")


async def running(service: Service, job: str) -> None:
    for _ in range(2000):
        if (await service.job("ann", job))["state"] == "running":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not run")


@asynchronous
async def test_jobs_outlive_a_killed_worker(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        before = await submit(service, ADD)
        await ended(service, before)
        first = await submit(service, long(300_000))
        second = await submit(service, ADD)
        await running(service, first)
        await killed(service)
        done = await ended(service, first)
        assert (done["state"], done["about"]) == ("done", ABOUT)
        assert (await ended(service, second))["reply"]["results"]["x"].values.tolist() == [300_003.0, 300_004.0]
        assert await values(service) == [300_003.0, 300_004.0]
        assert (await service.job("ann", before, result=True))["reply"]["steps_run"] == 1
        listed = await service.jobs("ann")
        assert [job["job"] for job in listed["jobs"]] == [before, first, second]


@everywhere
@asynchronous
async def test_jobs_outlive_the_server(workers: str, tmp_path: Path) -> None:
    async with served(tmp_path, workers) as service:
        await service.run("ann", None, X)
        done = await submit(service, ADD)
        failed = await submit(service, {"steps": [step("add_", input="y", other=1)]})
        reply = (await ended(service, done))["reply"]
        problem = (await ended(service, failed))["problem"]
        begun = await submit(service, long(300_000))
        queued = await submit(service, ADD)
        cancelled = await submit(service, ADD)
        await service.cancel_job("ann", cancelled)
        await running(service, begun)
    async with served(tmp_path, workers) as service:
        assert (await service.job("ann", done, result=True))["reply"]["results"]["x"].etag == reply["results"]["x"].etag
        assert (await service.job("ann", failed))["problem"] == problem
        assert (await service.job("ann", cancelled))["state"] == "cancelled"
        assert (await ended(service, begun))["state"] == "done"
        assert (await ended(service, queued))["state"] == "done"
        assert await values(service) == [300_003.0, 300_004.0]
        with pytest.raises(NoSuchJob):
            await service.job("bob", done)
    async with served(tmp_path, workers):
        pass
    assert kinds(tmp_path) == [".done"] * 5


@asynchronous
async def test_a_job_that_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the server dies between a job's commit and the writing of its end."""
    monkeypatch.setattr(JobFiles, "end", lambda *_: None)
    async with served(tmp_path, "inline") as service:
        await service.run("ann", None, X)
        job = await submit(service, ADD)
        keyed = await submit(service, ADD, once=("POST /v1/programs k", "d"))
        first = (await ended(service, job))["reply"]
        await ended(service, keyed)
    assert kinds(tmp_path) == [".job"] * 2
    monkeypatch.undo()
    async with served(tmp_path, "inline") as service:
        assert (await ended(service, job))["reply"]["results"]["x"].values.tolist() == [2.0, 3.0]
        assert (await ended(service, job))["reply"]["kept"] == first["kept"]
        assert (await ended(service, keyed))["state"] == "done"
        assert await values(service) == [3.0, 4.0]
        assert await submit(service, ADD, once=("POST /v1/programs k", "d")) == keyed
        answer, _ = await service.run("ann", None, ADD, once=("POST /v1/programs k", "d"))
        assert answer["results"]["x"].values.tolist() == [3.0, 4.0]
        assert await values(service) == [3.0, 4.0]


@asynchronous
async def test_a_job_that_ends_its_worker_twice_is_not_run_again(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        deadly = await submit(service, long(1_000_000))
        other = await submit(service, ADD)
        for _ in range(2):
            await running(service, deadly)
            await killed(service)
        found = await ended(service, deadly)
        assert (found["state"], found["problem"]["code"]) == ("failed", "killed-worker")
        assert (await ended(service, other))["reply"]["results"]["x"].values.tolist() == [2.0, 3.0]


@asynchronous
async def test_an_answer_that_is_waited_for_is_a_job_where_the_worker_dies(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        taking = asyncio.create_task(service.submit("ann", None, long(300_000), about=ABOUT, wait=60.0))
        for _ in range(2000):
            jobs = (await service.jobs("ann"))["jobs"]
            if jobs and jobs[0]["state"] == "running":
                break
            await asyncio.sleep(0.01)
        os.kill(pid(service), signal.SIGKILL)
        job, reply = await taking
        assert reply is None
        assert (await ended(service, job["job"]))["state"] == "done"


@asynchronous
async def test_without_a_data_directory_a_job_goes_with_its_worker_and_says_so() -> None:
    service = Service("cpu:1", threads=1)
    await service.start()
    try:
        assert not service.durable
        job = await submit(service, {"steps": [{"repeat": 900_000, "steps": [step("zeros", "x", size=[1])]}]})
        await running(service, job)
        await killed(service)
        found = await service.job("ann", job, result=True)
        assert (found["state"], found["problem"]["code"], found["reply"]) == ("failed", "job-lost", None)
        assert [job["state"] for job in (await service.jobs("ann"))["jobs"]] == ["failed"]
        await service.cancel_job("ann", job)
        with pytest.raises(NoSuchJob):
            await service.job("bob", job)
    finally:
        await service.close()


@asynchronous
async def test_jobs_of_workers_that_are_no_more_go_on_with_the_others(tmp_path: Path) -> None:
    async with served(tmp_path, "cpu:2") as service:
        names = ("a", "b")
        for name in names:
            await service.create_session("ann", {"name": name})
            await service.run("ann", name, X)
        jobs = [(await service.submit("ann", name, long(200_000), about=ABOUT))[0]["job"] for name in names]
    async with served(tmp_path, "cpu:1") as service:
        for job, name in zip(jobs, names, strict=True):
            assert (await ended(service, job))["state"] == "done"
            assert await values(service, session=name) == [200_001.0, 200_002.0]


# ---------------------------------------------------------------- files


class Full(Files):
    def create(self, path: Path) -> File:
        raise OSError(28, "No space left on device")


def test_a_job_that_the_disk_does_not_take_is_refused(tmp_path: Path) -> None:
    files = JobFiles(tmp_path / "jobs", Full())
    with pytest.raises(OutOfMemory) as caught:
        files.begin("j-1", {}, b"", [])
    assert caught.value.code == "disk-full"
    files.end("j-1", {})
    assert not files.tried("j-1")
    assert list(files.all()) == []


def test_a_file_that_is_not_what_was_written_is_set_aside(tmp_path: Path) -> None:
    files = JobFiles(tmp_path / "jobs", sync=False)
    for id in ("j-1", "j-2", "j-3"):
        files.begin(id, {"id": id}, b"program", [])
    files.end("j-3", {"id": "end"})
    path = tmp_path / "jobs" / "j-1.job"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    (tmp_path / "jobs" / "j-2.job.tmp").write_bytes(b"half")
    files = JobFiles(tmp_path / "jobs")
    assert list(files.all()) == [("j-2", {"id": "j-2"}, False), ("j-3", {"id": "end"}, True)]
    assert sorted(p.name for p in (tmp_path / "jobs").iterdir()) == ["j-1.job.damaged", "j-2.job", "j-3.done"]
    assert files.program("j-2") == (b"program", [])
    path = tmp_path / "jobs" / "j-2.job"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged):
        files.program("j-2")
    files.forget("j-2")
    files.forget("j-3")
    assert list(files.all()) == []


@asynchronous
async def test_a_full_disk_refuses_the_job_and_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, "inline") as service:
        await service.run("ann", None, X)
        monkeypatch.setattr(JobFiles, "_write", _full)
        with pytest.raises(EngineError) as caught:
            await submit(service, ADD)
        assert caught.value.code == "disk-full"
        assert (await service.jobs("ann"))["jobs"] == []
        assert await values(service) == [1.0, 2.0]


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")
