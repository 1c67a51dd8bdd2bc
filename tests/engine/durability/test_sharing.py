"""Forks, public ids, keys of deletions and damaged sessions across the ends of workers and servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import Invalid, NoSuchSession
from tests.engine.durability.test_service import ADD, X, everywhere, killed, served, values
from tests.engine.programs import step
from tests.engine.workers.fakes import asynchronous

LESSON = {"inputs": {"x": {"data": [1234.5, 6789.25]}}, "keep": {"x": "x"}}


def flip_a_bit(folder: Path, within: bytes) -> None:
    """Damages the one log of a directory where these bytes are."""
    (log,) = folder.glob("*/*.log")
    data = bytearray(log.read_bytes())
    data[data.index(within)] ^= 1
    log.write_bytes(data)


@asynchronous
async def test_a_fork_outlives_its_worker_and_its_source(tmp_path: Path) -> None:
    async with served(tmp_path) as service:
        await service.run("ann", None, X)
        public = (await service.patch_session("ann", None, {"public": True}))["public_id"]
        await service.create_session("bob", {"fork": public, "name": "mine"})
        await killed(service)
        assert (await service.query("bob", "mine", {"do": "read", "ref": "x"}, "all"))[0].values.tolist() == [1, 2]
        assert (await service.query("bob", public, {"do": "read", "ref": "x"}, "all"))[0].values.tolist() == [1, 2]
        await service.run("bob", "mine", ADD)
        await service.delete_session("ann", None)
    async with served(tmp_path) as service:
        assert (await service.query("bob", "mine", {"do": "read", "ref": "x"}, "all"))[0].values.tolist() == [2, 3]
        with pytest.raises(NoSuchSession):
            await service.query("bob", public, {"do": "read", "ref": "x"}, "all")


@everywhere
@asynchronous
async def test_a_deletion_with_its_key_is_done_once(tmp_path: Path, workers: str) -> None:
    once = ("DELETE /v1/sessions/default k", "digest")
    async with served(tmp_path, workers) as service:
        await service.run("ann", None, X)
        await service.delete_session("ann", None, once)
        await service.run("ann", None, X)
        await service.delete_session("ann", None, once)
        assert await values(service) == [1, 2]
        with pytest.raises(Invalid, match="another request"):
            await service.delete_session("ann", None, (once[0], "another"))
        await service.run("bob", None, X)
        await service.delete_session("bob", None, once)  # another owner's key is another key
    async with served(tmp_path, workers) as service:
        await service.delete_session("ann", None, once)
        assert await values(service) == [1, 2]
        await service.delete_session("ann", None, (once[0] + "2", "digest"))
        assert (await service.list_sessions("ann"))["sessions"] == []


@everywhere
@asynchronous
async def test_a_damaged_session_is_listed_with_its_state(tmp_path: Path, workers: str) -> None:
    async with served(tmp_path, workers, sync="always") as service:
        made = await service.create_session("ann", {"name": "lesson"})
        await service.run("ann", "lesson", LESSON)
        await service.run("ann", "lesson", {"steps": [step("add_", input="x", other=1)]})
        await service.run("ann", None, X)
    flip_a_bit(tmp_path, np.array([1234.5, 6789.25], "<f4").tobytes())
    async with served(tmp_path, workers) as service:
        rows = {row["name"]: row for row in (await service.list_sessions("ann"))["sessions"]}
        assert (rows["lesson"]["id"], rows["lesson"]["state"]) == (made["id"], "damaged")
        assert "damaged" in rows["lesson"]["why"]
        assert (rows["default"]["state"], rows["default"]["tensors"]) == ("ready", 1)
        assert len((await service.all_sessions())["sessions"]) == 2
        assert (await service.usage("ann"))["sessions"] == 2
