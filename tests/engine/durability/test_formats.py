"""The files' formats, held by golden files: what version 1 wrote is read for ever."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.durability import recovery, snapshots
from engine.durability.files import Files
from engine.durability.records import (
    HEADER_BYTES,
    NOBODY,
    Damaged,
    body_of,
    head_of,
    payload_of,
    raw_head,
    scan,
    seal,
    tag_of,
)
from engine.durability.repair import repair
from engine.durability.store import DataDir
from engine.errors import Unavailable
from tests.engine.durability.houses import House, bits, copied, kill, look
from tests.engine.programs import floats, run, step

GOLDEN = Path(__file__).parent / "golden"
WORD = bytes.fromhex("0123456789abcdef")
HEAD = {"is": "commit", "session": "s-1", "n": 2, "at": 1.5, "call": None, "key": None, "reply": None, "short": None}


def joined(payload: list[Any]) -> bytes:
    return b"".join(bytes(part) for part in payload)


def test_a_record_s_bytes() -> None:
    body = {"big": 1 << 70, "nan": math.nan, "text": "\ud800", "data": np.arange(3000, dtype=np.uint8) % 251}
    record = joined(seal(payload_of(HEAD, body), WORD, 7, 5, tag_of("s-1"), NOBODY))
    path = GOLDEN / "record.bin"
    assert record == path.read_bytes()
    (found,) = scan(memoryview(record), WORD)
    assert (found.lsn, found.synced, found.tag, found.before, found.sound) == (7, 5, tag_of("s-1"), NOBODY, True)
    assert (found.start, found.end) == (HEADER_BYTES, len(record))
    payload = memoryview(record)[found.start : found.start + found.size]
    assert head_of(payload) == HEAD
    back = body_of(payload)
    assert (back["big"], math.isnan(back["nan"]), back["text"]) == (1 << 70, True, "\ud800")
    assert bytes(back["data"]) == body["data"].tobytes()


def test_what_another_version_wrote_is_no_surprise() -> None:
    with pytest.raises(Damaged):
        head_of(memoryview(b"\x05\0\0\0\0\0\0\0\xc1\xc1\xc1\xc1\xc1"))


@pytest.mark.parametrize("junk", [0, 1, 8, 100])
def test_reading_begins_again_behind_damage(junk: int) -> None:
    records = [joined(seal(payload_of({**HEAD, "n": n}), WORD, n, 0, tag_of("s"), NOBODY)) for n in range(1, 6)]
    records[2] = bytes(junk)
    data = memoryview(b"".join(records))
    assert [found.lsn for found in scan(data, WORD) if found.sound] == [1, 2, 4, 5]


def test_a_planted_record_is_not_found() -> None:
    planted = joined(seal(payload_of(HEAD), b"\0" * 8, 2, 0, tag_of("other"), NOBODY))
    outer = joined(seal([planted], WORD, 1, 0, tag_of("s"), NOBODY))
    broken = bytearray(outer)
    broken[-9] ^= 1  # the outer payload is damaged, so that what is in it is looked through
    assert [found.lsn for found in scan(memoryview(bytes(broken)), WORD)] == [1]


def test_a_folder_of_version_1_is_read(tmp_path: Path) -> None:
    """golden/folder holds a snapshot and a log; `python -m tests.engine.durability.make_golden` wrote it."""
    states, aside = look(copied(GOLDEN / "folder", tmp_path / "a"))
    assert not aside
    told = json.loads((GOLDEN / "told.json").read_text())
    assert {id: sorted(key for key in state if key.startswith("t")) for id, state in states.items()} == told["ids"]
    house = House(tmp_path / "a")
    for id, values in told["values"].items():
        session = house.store.load(id)
        assert {name: t.array.tobytes().hex() for name, t in session.names.items()} == values
    answers = house.store.kept["s-1"].answers
    assert answers is not None
    known = answers.get("POST /v1/programs k")
    assert known is None or known.digest == "d"  # a day after it was written it is forgotten
    kill(house.store)


def test_short_forms_of_commits_are_read(tmp_path: Path) -> None:
    """golden/light holds a log; `python -m tests.engine.durability.make_golden light` wrote it."""
    house = House(copied(GOLDEN / "light", tmp_path / "a"))
    session = house.store.load("s")
    told = json.loads((GOLDEN / "light.json").read_text())
    assert {name: t.array.tobytes().hex() for name, t in session.names.items()} == told
    assert session.names["x"].requires_grad
    assert [session.names[name].id for name in told] == ["t1", "t4", "t5"]
    kept = house.store.kept["s"]
    assert recovery.NOTHING in kept.parts
    (path,) = (tmp_path / "a").glob("*.log")
    data = memoryview(path.read_bytes())
    heads = [raw_head(data, found.start) for found in scan(data, bytes.fromhex(path.name.split(".")[1]))]
    assert sum(isinstance(head, list) for head in heads) >= 5
    kill(house.store)


def test_a_snapshot_is_a_safetensors_file(tmp_path: Path) -> None:
    house = House(tmp_path / "a")
    session = house.open("s")
    house.run("s", inputs={"x": floats(2, 3)}, keep={"x": "x"})
    house.run(
        "s",
        step("to", "c", input="x", dtype="complex64"),
        step("gt", "b", input="x", other=0),
        keep={"c": "c", "b": "b"},
    )
    house.store.save("s", session)
    (path,) = (tmp_path / "a" / "snapshots").iterdir()
    tensors = load_file(path)
    assert {str(array.dtype) for array in tensors.values()} == {"float32", "bool", "uint8"}
    x = session.names["x"]
    assert tensors[f"s{x.storage.uid}"].tobytes() == x.array.tobytes()
    snapshot = snapshots.open_snapshot(path, Files())
    assert snapshot.about["info"]["tensors"] == 3
    kill(house.store)


# ---------------------------------------------------------------- repair


def damaged(folder: Path) -> dict[str, list[Any]]:
    """A data directory with one session whose third change is damaged, and one that is whole."""
    data = DataDir(folder)
    house = House(folder / "cpu-0", sync="always")
    for id in ("s", "u"):
        house.open(id)
        house.run(id, inputs={"x": floats(3)}, keep={"x": "x"})
        for _ in range(3):
            house.run(id, step("add_", input="x", other=1))
    place = house.store.kept["s"].places[3]
    kill(house.store)
    data.close()
    (path,) = (folder / "cpu-0").glob("*.log")
    broken = bytearray(path.read_bytes())
    broken[place.start + 20] ^= 1
    path.write_bytes(bytes(broken))
    return house.states


def test_repair_gives_back_what_is_whole_and_says_what_is_lost(tmp_path: Path) -> None:
    states = damaged(tmp_path)
    make = House(tmp_path / "other").make
    report = repair(tmp_path, make)
    assert any("session s: as it was after its change 3;" in line for line in report), report
    assert not any("session u" in line for line in report)
    found, aside = look(tmp_path / "cpu-0")
    assert not aside
    assert found == {"s": states["s"][2], "u": states["u"][-1]}
    (kept,) = tmp_path.glob("repaired-*")
    assert list(kept.glob("*.log")), "nothing is deleted"
    assert any("nothing is damaged" in line for line in repair(tmp_path, make))


def test_a_repaired_session_goes_on(tmp_path: Path) -> None:
    states = damaged(tmp_path)
    repair(tmp_path, House(tmp_path / "other").make)
    house = House(tmp_path / "cpu-0")
    house.sessions["s"], house.states["s"] = house.store.load("s"), []
    house.run("s", step("add_", input="x", other=1))
    kill(house.store)
    assert bits(house.sessions["s"])["t1"][2] == states["s"][3]["t1"][2]
    assert look(tmp_path / "cpu-0")[0]["s"] == house.states["s"][-1]


def test_repair_does_not_touch_what_a_server_uses(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    with pytest.raises(Unavailable, match="a server uses"):
        repair(tmp_path, House(tmp_path / "other").make)
    data.close()


def test_a_loaded_session_is_as_it_was(tmp_path: Path) -> None:
    house = House(tmp_path / "a")
    house.open("s")
    house.run("s", inputs={"x": {"data": [1.0]}}, keep={"x": "x"})
    assert run(house.store.load("s"), return_=["x"])["results"]["x"].values == 1.0
    kill(house.store)
