"""Makes and deletes sessions with the garbage collector off, and prints how many of their objects are still there.

A process of its own, since whatever else runs in one has such objects too:

    python -m tests.engine.workers.closing [FOLDER]
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from pathlib import Path

import msgpack  # type: ignore[import-untyped]

from engine.context import Context
from engine.errors import EngineError
from engine.history import History
from engine.service import Limits, Service
from engine.session import Session
from engine.workers.seats import Seat
from tests.engine.programs import step

MANY = 40
KINDS = (Session, Context, Seat, History, msgpack.Packer)
TRAINING = [
    step("randn", "x", size=[8], requires_grad=True),
    step("mul", "y", input="x", other=2.0),
    step("sum", "z", input="y"),
    step("autograd.backward", tensors=["z"]),
]


def alive() -> int:
    """How many objects of sessions the process has."""
    return sum(isinstance(found, KINDS) for found in gc.get_objects())


async def left(folder: Path | None) -> int:
    """How many more there are when MANY sessions have come and gone."""
    limits = Limits(session_bytes=1 << 20, server_bytes=1 << 24)
    house = Service("inline", limits=limits, threads=1, data_dir=folder)
    await house.start()
    gc.collect()
    gc.disable()
    before, refused = alive(), 0
    for i in range(MANY):
        name = f"s{i}"
        await house.create_session("ann", {"name": name})
        await house.run("ann", name, {"steps": TRAINING, "keep": {"x": "x"}, "return": ["z"]})
        with contextlib.suppress(EngineError):
            await house.run("ann", name, {"steps": [step("mm", input="x", mat2="x")]})
            refused -= 1
        refused += 1
        await house.delete_session("ann", name)
    found = alive() - before
    await house.close()
    assert refused == MANY
    return found


if __name__ == "__main__":
    print(asyncio.run(left(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
