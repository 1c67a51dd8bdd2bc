"""Writes golden/: `python -m tests.engine.durability.make_golden [light]`, only when the format gets a new version.

What an older version wrote stays beside it: it must be read for ever. `light` writes golden/light, a log with the short
forms of commits, which came later.
"""

from __future__ import annotations

import json
import math
import shutil
import sys

import numpy as np

from engine.durability.records import NOBODY, payload_of, seal, tag_of
from tests.engine.durability.houses import House
from tests.engine.durability.test_formats import GOLDEN, HEAD, WORD, joined
from tests.engine.programs import floats, step


def main() -> None:
    """Writes the files."""
    GOLDEN.mkdir(exist_ok=True)
    body = {"big": 1 << 70, "nan": math.nan, "text": "\ud800", "data": np.arange(3000, dtype=np.uint8) % 251}
    (GOLDEN / "record.bin").write_bytes(joined(seal(payload_of(HEAD, body), WORD, 7, 5, tag_of("s-1"), NOBODY)))
    folder = GOLDEN / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    house = House(folder)
    for id in ("s-1", "s-2"):
        house.open(id)
        house.run(id, inputs={"x": {**floats(2, 3), "requires_grad": True}}, keep={"x": "x"})
        house.run(id, step("mul", "y", input="x", other="x"), step("sum", "l", input="y"), keep={"l": "l"})
        house.run(id, step("backward", input="l", retain_graph=True))
        house.change(
            id, {"steps": [step("randn", "n", size=[2])], "keep": {"n": "n"}}, key=["POST /v1/programs k", "d"]
        )
        if id == "s-1":
            house.store.save(id, house.sessions[id])
            house.run(id, step("to", "b", input="x", dtype="bfloat16"), keep={"b": "b"})
    house.store.close()
    told = {
        "ids": {id: sorted(session.tensors) for id, session in house.sessions.items()},
        "values": {
            id: {name: t.array.tobytes().hex() for name, t in session.names.items()}
            for id, session in house.sessions.items()
        },
    }
    (GOLDEN / "told.json").write_text(json.dumps(told, indent=1) + "\n")
    for name in ("lock", "running"):
        (folder / name).unlink()


def light() -> None:
    """Writes golden/light."""
    folder = GOLDEN / "light"
    shutil.rmtree(folder, ignore_errors=True)
    house = House(folder)
    house.open("s")
    house.run("s", inputs={"x": {**floats(2, 3), "requires_grad": True}}, keep={"x": "x"})
    house.run("s", step("to", "b", input="x", dtype="bfloat16"), step("detach", "b", input="b"), keep={"b": "b"})
    for _ in range(2):
        house.run("s", step("ones", "y", size=[2, 2], dtype="int64"), keep={"y": "y"})
    house.change("s", {"steps": [step("zeros", "z", size=[800])], "keep": {"z": "z"}}, key=["POST /v1/programs k", "d"])
    house.run("s", step("add_", input="y", other=1))
    house.run("s", step("_release", input="b"))
    house.store.close()
    names = house.sessions["s"].names
    told = {name: t.array.tobytes().hex() for name, t in names.items()}
    (GOLDEN / "light.json").write_text(json.dumps(told, indent=1) + "\n")
    for name in ("lock", "running"):
        (folder / name).unlink()
    (folder / "snapshots").rmdir()


if __name__ == "__main__":
    light() if "light" in sys.argv[1:] else main()
