"""Every kind of record, cut, damaged and lost; and changes that later ones write over."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from engine.durability import recovery
from engine.durability.log import OVERDUE
from engine.durability.records import HEADER_BYTES, scan
from engine.durability.repair import repair
from engine.durability.store import DataDir
from engine.rebuild import Rebuild
from tests.engine.durability.houses import ForgetfulFiles, House, QuickFiles, Town, bits, copied, kill, look, world
from tests.engine.programs import floats, step

ADD = step("add_", input="x", other=1)
NOISE = step("uniform_", input="x")


def life(town: Town) -> None:
    """All that a log can say, in few bytes."""
    for id in ("s", "u"):
        town.open(id)
        town.run(id, inputs={"x": {"data": 1.5}}, keep={"x": "x"})
    town.patch("s", public="p-1")
    town.fork("f", "s")
    town.run("s", ADD)
    town.run("s", ADD)
    town.run("f", ADD)
    town.patch("s", public=None)
    town.end("u", why="its lease ran out")
    town.run("f", step("mul", "y", input="x", other=2), keep={"y": "y"})
    town.patch("f", name="mine", lease_s=60)
    town.end("s", key=["DELETE k", "digest"])
    town.run("f", NOISE)


def test_a_log_of_every_kind_cut_anywhere_is_what_there_was(tmp_path: Path) -> None:
    town = Town(tmp_path / "a", files=QuickFiles())
    life(town)
    word = town.store.log.segments[0].sync_word
    kill(town.store)
    (path,) = (tmp_path / "a").glob("*.log")
    whole = path.read_bytes()
    ends = [found.start + found.size for found in scan(memoryview(whole), word)]
    assert len(ends) == len(town.worlds), "the table, and each change"
    near = {end + more for end in ends for more in (-9, -1, 0, 1, HEADER_BYTES)}
    reached = []
    for cut in sorted({*range(0, len(whole), 7), *(at for at in near if at <= len(whole))}):
        folder = tmp_path / f"b{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(whole[:cut])
        found, aside = world(folder)
        assert not aside
        reached.append(town.worlds.index(found))
        assert reached[-1] == max(0, sum(end <= cut for end in ends) - 1), cut
    assert sorted(set(reached)) == list(range(len(town.worlds)))


def test_a_flipped_bit_in_a_record_of_any_kind(tmp_path: Path) -> None:
    town = Town(tmp_path / "a", files=QuickFiles(), sync="always")
    life(town)
    town.store.close()
    sessions, ended, deletions = town.worlds[-1]
    (path,) = (tmp_path / "a").glob("*.log")
    whole = path.read_bytes()
    chance, set_aside = random.Random(2), 0
    for at in range(0, len(whole), 5):
        folder = tmp_path / f"b{at}"
        folder.mkdir()
        broken = bytearray(whole)
        broken[at] ^= 1 << chance.randrange(8)
        (folder / path.name).write_bytes(bytes(broken))
        (there, why, keys), aside = world(folder)
        assert {*there, *aside} == set(sessions), at
        assert all(there[id] == sessions[id] for id in there), at
        assert all(row in ended for row in why), at
        assert all(row in deletions for row in keys), at
        set_aside += len(aside)
    assert set_aside


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("sync", ["always", "everysec", "no"])
def test_the_loss_of_power_leaves_one_moment(tmp_path: Path, sync: str, seed: int) -> None:
    """Of all sessions together: nothing is there of a later change without all of the earlier ones."""
    chance = random.Random(f"{sync} {seed}")
    files, now = ForgetfulFiles(), [0.0]
    town = Town(tmp_path / "a", sync=sync, files=files, clock=lambda: now[0], segment_bytes=3000)
    times = [0.0]
    for turn in range(60):
        what, id = chance.random(), chance.choice([*town.sessions, None])
        if id is None or what < 0.05:
            town.open(f"s{turn}")
            town.run(f"s{turn}", inputs={"x": floats(9)}, keep={"x": "x"})
            times.append(now[0])
        elif what < 0.6:
            town.run(id, chance.choice([ADD, ADD, NOISE]))
        elif what < 0.7:
            town.run(id, step("mul", "y", input="x", other=turn), keep={"y": "y"})
        elif what < 0.8:
            town.patch(id, public=f"p-{turn}", name=f"n{turn}")
        elif what < 0.9:
            town.fork(f"f{turn}", id)
        else:
            town.end(id, key=[f"DELETE {turn}", "d"], why=chance.choice([None, f"why {turn}"]))
        times.append(now[0])
        now[0] += chance.random() * 0.2
        town.store.log.sync_due()  # what the thread does
        if id in town.sessions and chance.random() < 0.1:
            town.store.save(id, town.sessions[id])
        town.store.tidy()
    now[0] += chance.choice([0.0, 0.7, 5.0])
    town.store.log.sync_due()
    kill(town.store)
    files.power_loss(tmp_path / "a", chance)
    found, aside = world(tmp_path / "a")
    assert not aside
    moments = [at for at, then in enumerate(town.worlds) if then == found]
    assert moments, "it is nothing that ever was"
    if sync == "always":
        assert moments[-1] == len(town.worlds) - 1
    if sync == "everysec":
        assert all(at > now[0] - OVERDUE for at in times[moments[-1] + 1 :])


@pytest.mark.parametrize("seed", range(12))
def test_a_session_whose_end_is_not_on_the_disk_is_there(tmp_path: Path, seed: int) -> None:
    """Its snapshot is all that there is of it: that must not go before its end is certain."""
    files = ForgetfulFiles()
    town = Town(tmp_path / "a", sync="no", files=files, segment_bytes=600)
    town.open("s")
    town.run("s", inputs={"x": floats(9)}, keep={"x": "x"})
    town.store.save("s", town.sessions["s"])
    town.open("u")
    town.run("u", inputs={"x": floats(90)}, keep={"x": "x"})
    town.store.save("u", town.sessions["u"])
    town.run("u", ADD)
    town.store.tidy()
    assert town.store.log.segments[0].number > 1
    town.end("s", key=["DELETE s", "d"])
    town.store.tidy()
    kill(town.store)
    files.power_loss(tmp_path / "a", random.Random(seed))
    found, aside = world(tmp_path / "a")
    assert not aside
    assert found in town.worlds[-3:]


# ---------------------------------------------------------------- written over

PROGRAMS: list[dict[str, Any]] = [
    {"steps": [ADD]},
    {"steps": [NOISE]},
    {"steps": [step("add_", input="w", other=1)]},
    {"steps": [ADD, step("add_", input="w", other=1)]},
    {"steps": [step("setitem_", input="x", index=[2], value=7)]},
    {"steps": [step("setitem_", input="x", index=["1:4"], value=8)]},
    {"steps": [step("mul", "y", input="x", other="w")], "keep": {"y": "y"}},
    {"steps": [step("add_", input="x", other=1), step("mul", "y", input="x", other=2)], "keep": {"y": "y"}},
    {"inputs": {"x": {"data": [0.5] * 8}}, "keep": {"x": "x"}},
    {"steps": [step("sum", "l", input="v"), step("backward", input="l")]},
    {"steps": [step("zero_", input="v.grad")]},
    {"steps": [step("rand", "r", size=[2])], "return": ["r"]},
]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_written_over_is_not_missed(tmp_path: Path, seed: int) -> None:
    """Whatever follows whatever: the session that skips what was written over is the one that does not."""
    chance = random.Random(seed)
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s")
    data = {"x": floats(8), "w": floats(8, seed=1), "v": {**floats(8, seed=2), "requires_grad": True}}
    house.run("s", inputs=data, keep={name: name for name in data})
    house.change("s", {"steps": PROGRAMS[9]["steps"]})
    for number in range(60):
        key = [f"POST k{number}", "d"] if chance.random() < 0.3 else None
        house.change("s", chance.choice(PROGRAMS), key=key)
    kill(house.store)
    again = House(tmp_path / "a", files=QuickFiles())
    kept = again.store.kept["s"]
    assert {recovery.NOTHING, recovery.HEAD, recovery.BODY} <= set(kept.parts)
    assert bits(again.store.load("s")) == house.states["s"][-1]
    assert kept.answers is not None
    answered = {row[0]: row[3] for row in kept.answers.rows()}
    kept.parts = bytearray(len(kept.parts))
    assert bits(again.store.load("s")) == house.states["s"][-1]
    assert kept.answers.rows()
    assert {row[0]: row[3] for row in kept.answers.rows()} == answered
    kill(again.store)


def test_changes_in_place_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s")
    house.run("s", inputs={"x": floats(3)}, keep={"x": "x"})
    for _ in range(50):
        house.run("s", ADD)
    kill(house.store)
    taken: list[Any] = []
    apply = Rebuild.apply
    monkeypatch.setattr(Rebuild, "apply", lambda work, commit: (taken.append(commit), apply(work, commit))[1])
    again = House(tmp_path / "a", files=QuickFiles())
    assert bits(again.store.load("s")) == house.states["s"][-1]
    assert len(taken) == 2, "what made it, and the last of the changes"
    kill(again.store)


def test_without_the_change_that_wrote_over_them_the_others_are_read(tmp_path: Path) -> None:
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s")
    house.run("s", inputs={"x": floats(3)}, keep={"x": "x"})
    for _ in range(4):
        house.run("s", ADD)
    kill(house.store)
    again = House(tmp_path / "a", files=QuickFiles())
    for back in (2, 3):  # as repair does where the newest cannot be read
        again.store.kept["s"].forget_last()
        assert bits(again.store.load("s")) == house.states["s"][-back]
    kill(again.store)


def test_repair_goes_back_behind_a_change_that_wrote_over_others(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    house = House(tmp_path / "data" / "cpu-0", sync="always")
    house.open("s")
    house.run("s", inputs={"x": floats(3)}, keep={"x": "x"})
    for _ in range(4):
        house.run("s", ADD)
    places = house.store.kept["s"].places
    kill(house.store)
    data.close()
    (path,) = (tmp_path / "data" / "cpu-0").glob("*.log")
    broken = bytearray(path.read_bytes())
    broken[places[4].start + 3] ^= 1  # the third of the four
    path.write_bytes(bytes(broken))
    assert set(look(copied(tmp_path / "data" / "cpu-0", tmp_path / "b"))[1]) == {"s"}
    repair(tmp_path / "data", House.made)
    assert look(tmp_path / "data" / "cpu-0")[0] == {"s": house.states["s"][3]}
