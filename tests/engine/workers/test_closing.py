"""Sessions that are deleted, or put to sleep, leave nothing for the garbage collector, which comes late."""

from __future__ import annotations

import gc
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest

from engine.context import Context
from engine.errors import EngineError
from engine.history import History
from engine.service import Limits, Service
from engine.session import Session
from engine.workers.seats import Seat
from tests.engine.programs import step
from tests.engine.workers.fakes import asynchronous

MANY = 40
KINDS = (Session, Context, Seat, History, msgpack.Packer)
TRAINING = [
    step("randn", "x", size=[8], requires_grad=True),
    step("mul", "y", input="x", other=2.0),
    step("sum", "z", input="y"),
    step("autograd.backward", tensors=["z"]),
]


def alive() -> int:
    return sum(isinstance(found, KINDS) for found in gc.get_objects())


@pytest.mark.parametrize("stored", [False, True])
@asynchronous
async def test_deleted_sessions_are_freed_at_once(tmp_path: Path, stored: bool) -> None:
    limits = Limits(session_bytes=1 << 20, server_bytes=1 << 24)
    house = Service("inline", limits=limits, threads=1, data_dir=tmp_path / "data" if stored else None)
    await house.start()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for i in range(MANY):
            name = f"s{i}"
            await house.create_session("ann", {"name": name})
            await house.run("ann", name, {"steps": TRAINING, "keep": {"x": "x"}, "return": ["z"]})
            with pytest.raises(EngineError):
                await house.run("ann", name, {"steps": [step("mm", input="x", mat2="x")]})
            await house.delete_session("ann", name)
        assert alive() - before < MANY, "more than the last ones, which a reply may still hold"
    finally:
        gc.enable()
        await house.close()
