"""kill -9 of a worker, and of the whole service, while jobs wait and run: each comes to its end, and is done once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kill.test_kill import Server, connected

pytestmark = [pytest.mark.kill, pytest.mark.timeout(3600)]
LONG = {"steps": [{"repeat": 100_000, "steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]}], "return": ["x"]}
ASYNC = {"Prefer": "respond-async"}


def job(server: Server, id: str, *states: str) -> Any:
    """The job, once it is in one of these states."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            with connected(server) as client:
                found = client.get(f"/v1/jobs/{id}")
        except httpx.HTTPError:  # it is only just coming up
            time.sleep(0.02)
            continue
        if found.status_code == 200 and found.json()["state"] in states:
            return found.json()
        assert found.status_code in (200, 503), found.text
        time.sleep(0.02)
    raise AssertionError(f"job {id} is never {' or '.join(states)}")


@pytest.mark.parametrize("sync", ["always", "everysec", "no"])
def test_jobs_come_to_their_end(tmp_path: Path, sync: str, kills: int) -> None:
    with Server(tmp_path, str(tmp_path / "data"), sync) as server:
        made = {"data": 0, "dtype": "int64", "name": "x"}
        assert httpx.post(f"{server.url}/v1/tensors", json=made).status_code == 201
        done = running = 0
        for kill in range(kills):
            ids = [httpx.post(f"{server.url}/v1/programs", json=LONG, headers=ASYNC).json()["id"] for _ in range(3)]
            # On a busy machine it may have ended before anybody sees it run.
            running += job(server, ids[kill % 2], "running", "done")["state"] == "running"
            if kill % 2:
                pid = server.worker()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            else:
                server.kill()
                server.start()
            for id in ids:
                done += 100_000
                found = job(server, id, "done", "failed")
                assert found["state"] == "done", found
                assert found["result"]["results"]["x"]["values"] == done
        assert httpx.get(f"{server.url}/v1/tensors/x").json()["values"] == done
    assert running, "no kill came while a job ran"
    print(f"{sync}: {kills} kills, {running} of them while the job ran that was waited for")
