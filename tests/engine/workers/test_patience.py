"""How long a call waits for a worker that is coming up."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from engine.errors import Unavailable
from engine.workers import supervisor as module
from tests.engine.workers.fakes import asynchronous
from tests.engine.workers.test_supervisor import pid, until, workers


@asynchronous
async def test_a_call_that_waits_for_a_worker_ends_with_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "FAILING", 1000)  # so that it is waited for until the end
    broken = tmp_path / "broken"
    monkeypatch.setenv("FAKES_BROKEN", str(broken))
    async with workers() as supervisor:
        broken.touch()
        os.kill(pid(supervisor), signal.SIGKILL)
        await until(lambda: supervisor.workers()[0]["state"] == "restarting")
        waiting = asyncio.create_task(supervisor.find("ann", None))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    with pytest.raises(Unavailable) as caught:  # the service did not wait for it, nor it for the worker
        await asyncio.wait_for(waiting, module._PATIENCE / 2)
    assert caught.value.code == "not-applied"
