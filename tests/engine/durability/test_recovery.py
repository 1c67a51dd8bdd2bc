"""What a start finds is what was acknowledged, bit for bit; and never a value that was not."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest

from engine.durability.log import OVERDUE, SYNC_AFTER
from engine.errors import OutOfMemory, Unavailable
from tests.engine.durability.houses import ForgetfulFiles, House, QuickFiles, bits, copied, kill, look
from tests.engine.programs import floats, run, step
from tests.engine.test_commit import HISTORY, NEXT, replay

ADD = step("add_", input="x", other=1)


def counted(house: House, id: str, times: int, **data: Any) -> None:
    """A session with a tensor that is changed in place."""
    house.open(id)
    house.run(id, inputs={"x": data or floats(3)}, keep={"x": "x"})
    for _ in range(times):
        house.run(id, ADD)


@pytest.mark.parametrize("end", ["killed", "closed", "snapshot"])
@pytest.mark.parametrize("upto", range(1, len(HISTORY) + 1))
def test_a_session_comes_back_and_goes_on_with_equal_bits(tmp_path: Path, upto: int, end: str) -> None:
    house = House(tmp_path / "a")
    ours = house.open("s")
    for number, program in enumerate(HISTORY[:upto]):
        if end == "snapshot" and number == upto // 2:
            house.store.save("s", ours)
        house.change("s", program)
    tags = [ours.etag(t) for t in ours.tensors.values()]
    if end == "closed":
        house.store.close()
    else:
        kill(house.store)
    again = House(tmp_path / "a")
    theirs = again.store.load("s")
    assert bits(theirs) == bits(ours)
    assert [theirs.etag(t) for t in theirs.tensors.values()] == tags
    if upto < len(HISTORY):
        return
    for program in NEXT:
        one, other = replay(ours, program)["results"], replay(theirs, program)["results"]
        for name, answer in one.items():
            assert answer.values.tobytes() == other[name].values.tobytes(), name
        assert bits(theirs) == bits(ours)
    kill(again.store)


def test_sessions_come_back_over_many_starts(tmp_path: Path) -> None:
    states: dict[str, Any] = {}
    for start in range(6):
        house = House(tmp_path / "a", segment_bytes=2000)
        for id in house.store.kept:
            house.sessions[id] = house.store.load(id)
            house.states[id] = []
            assert bits(house.sessions[id]) == states[id]
        counted(house, f"s{start}", 2)
        for id in house.sessions:
            house.run(id, ADD)
            states[id] = bits(house.sessions[id])
        if start == 3:
            house.store.save("s1", house.sessions["s1"])
        (house.store.close if start % 2 else lambda store=house.store: kill(store))()
    assert look(tmp_path / "a")[0] == states


# ---------------------------------------------------------------- damage


def small(folder: Path, **given: Any) -> House:
    house = House(folder, files=QuickFiles(), **given)
    for id in ("s", "u"):
        counted(house, id, 1, data=1.5)
    house.run("s", ADD)
    return house


def test_the_log_cut_at_every_byte_is_a_prefix(tmp_path: Path) -> None:
    house = small(tmp_path / "a")
    kill(house.store)
    (path,) = (tmp_path / "a").glob("*.log")
    whole = path.read_bytes()
    reached = set()
    for cut in range(len(whole)):
        folder = tmp_path / f"b{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(whole[:cut])
        states, aside = look(folder)
        assert not aside
        for id, state in states.items():
            assert state in house.states[id]
        reached.add(tuple(house.states[id].index(states[id]) if id in states else -1 for id in ("s", "u")))
        if cut % 10 == 0:
            assert look(folder)[0] == states, "what was cut off stays off"
    assert reached == {(-1, -1), (0, -1), (1, -1), (2, -1), (2, 0), (2, 1), (2, 2), (3, 2)}


@pytest.mark.parametrize("sync, closed", [("always", True), ("always", False), ("no", False)])
def test_a_flipped_bit_never_gives_a_wrong_value(tmp_path: Path, sync: str, closed: bool) -> None:
    house = small(tmp_path / "a", sync=sync)
    last = {id: states[-1] for id, states in house.states.items()}
    house.store.close() if closed else kill(house.store)
    (path,) = (tmp_path / "a").glob("*.log")
    whole = path.read_bytes()
    chance = random.Random(1)
    aside_seen = behind_seen = 0
    for at in range(0, len(whole), 3):
        folder = tmp_path / f"b{at}"
        folder.mkdir()
        broken = bytearray(whole)
        broken[at] ^= 1 << chance.randrange(8)
        (folder / path.name).write_bytes(bytes(broken))
        states, aside = look(folder)
        behind = [id for id, state in states.items() if state != last[id]]
        for id in behind:
            assert states[id] in house.states[id]
        aside_seen += len(aside)
        behind_seen += len(behind)
        if sync == "always":
            assert set(states) | set(aside) == {"s", "u"}, at
            assert behind in ([], ["s"]), at  # whose the very last record is, which may have been torn
            assert not (behind and closed), at
    assert (aside_seen > 0) == (sync == "always")
    assert (behind_seen > 0) == (not closed)


def test_damage_sets_one_session_aside_and_the_others_go_on(tmp_path: Path) -> None:
    house = House(tmp_path / "a", sync="always")
    for id in ("s", "u", "v"):
        counted(house, id, 3)
    last = {id: states[-1] for id, states in house.states.items()}
    place = house.store.kept["u"].places[2]
    kill(house.store)
    (path,) = (tmp_path / "a").glob("*.log")
    broken = bytearray(path.read_bytes())
    broken[place.start + 5 : place.start + 40] = bytes(35)
    path.write_bytes(bytes(broken))
    again = House(tmp_path / "a", sync="always")
    for id in ("s", "v"):
        again.sessions[id] = again.store.load(id)
        again.states[id] = []
        assert bits(again.sessions[id]) == last[id]
        again.run(id, ADD)
    with pytest.raises(Exception, match="set aside") as caught:
        again.store.load("u")
    assert caught.value.code == "session-damaged"  # type: ignore[attr-defined]
    again.store.tidy()
    kill(again.store)
    states, aside = look(tmp_path / "a")
    assert set(states) == {"s", "v"}
    assert set(aside) == {"u"}


def test_a_damaged_snapshot_sets_its_session_aside(tmp_path: Path) -> None:
    house = House(tmp_path / "a")
    counted(house, "s", 1)
    house.store.save("s", house.sessions["s"])
    counted(house, "u", 1)
    kill(house.store)
    (path,) = (tmp_path / "a" / "snapshots").iterdir()
    whole = path.read_bytes()
    last = house.states["s"][-1]
    for at in range(0, len(whole), 7):
        folder = copied(tmp_path / "a", tmp_path / f"b{at}")
        broken = bytearray(whole)
        broken[at] ^= 16
        (folder / "snapshots" / path.name).write_bytes(bytes(broken))
        states, aside = look(folder)
        assert "u" in states
        assert ("s" in aside) or states["s"] == last, at


# ---------------------------------------------------------------- power


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sync", ["always", "everysec", "no"])
def test_the_loss_of_power(tmp_path: Path, sync: str, seed: int) -> None:
    chance = random.Random(seed)
    files, now = ForgetfulFiles(), [0.0]
    house = House(tmp_path / "a", sync=sync, files=files, clock=lambda: now[0], segment_bytes=6000)
    ids = [f"s{i}" for i in range(3)]
    done: list[tuple[float, str]] = []  # when each change was acknowledged, and in which session
    for id in ids:
        house.open(id)
        done.append((now[0], id))
    for id in ids:
        house.run(id, inputs={"x": floats(40)}, keep={"x": "x"})
        done.append((now[0], id))
    for _ in range(40):
        id = chance.choice(ids)
        house.run(id, ADD)
        done.append((now[0], id))
        now[0] += chance.random() * 0.2
        house.store.log.sync_due()  # what the thread does
        if chance.random() < 0.05:
            house.store.save(id, house.sessions[id])
        house.store.tidy()
    kill(house.store)
    files.power_loss(tmp_path / "a", chance)
    states, aside = look(tmp_path / "a")
    assert not aside
    numbers = {id: house.states[id].index(states[id]) if id in states else -1 for id in ids}
    lost = []
    seen = dict.fromkeys(ids, -1)
    for at, id in done:
        seen[id] += 1
        if seen[id] > numbers[id]:
            lost.append(at)
        else:
            assert not lost, "a prefix: nothing is there after what is not"
    if sync == "always":
        assert not lost
    if sync == "everysec":
        assert all(at > now[0] - OVERDUE for at in lost)


def test_with_everysec_a_full_segment_is_synced_at_once(tmp_path: Path) -> None:
    """The next one waits until it is on the disk."""
    house = House(tmp_path / "a", clock=lambda: 0.0, segment_bytes=100_000)
    counted(house, "s", 0)
    assert not house.store.log.sync_due()
    house.run("s", inputs={"x": floats(50_000)}, keep={"x": "x"})
    assert house.store.log.sync_due()
    assert house.store.log.synced == house.store.log.lsn
    house.run("s", inputs={"y": floats(4)}, keep={"y": "y"})
    assert len(house.store.log.segments) == 2
    assert not house.store.log.sync_due()
    kill(house.store)


def test_with_everysec_a_change_waits_for_a_sync_that_is_late(tmp_path: Path) -> None:
    files, now = ForgetfulFiles(), [0.0]
    house = House(tmp_path / "a", files=files, clock=lambda: now[0])
    counted(house, "s", 0)
    assert not house.store.log.sync_due()
    now[0] = SYNC_AFTER
    assert house.store.log.sync_due()
    assert house.store.log.synced == house.store.log.lsn
    house.run("s", ADD)
    now[0] += OVERDUE + 0.1
    house.run("s", ADD)
    assert house.store.log.synced == house.store.log.lsn - 1
    kill(house.store)


# ---------------------------------------------------------------- failing disks


def test_a_full_disk_takes_the_change_back_and_the_next_may_succeed(tmp_path: Path) -> None:
    files = ForgetfulFiles()
    house = House(tmp_path / "a", files=files)
    counted(house, "s", 1)
    for _ in range(2):
        files.fail = {"write": OSError(errno.ENOSPC, "No space left on device")}
        with pytest.raises(OutOfMemory, match="disk is full") as caught:
            house.run("s", ADD)
        assert caught.value.code == "disk-full"
        files.fail = {}
        house.sessions["s"] = house.store.load("s")  # what the undo log does in a worker
        assert bits(house.sessions["s"]) == house.states["s"][-1]
        house.run("s", ADD)
    kill(house.store)
    assert look(tmp_path / "a")[0] == {"s": house.states["s"][-1]}


def test_after_a_failed_write_the_log_takes_no_more(tmp_path: Path) -> None:
    files = ForgetfulFiles()
    house = House(tmp_path / "a", files=files)
    counted(house, "s", 1)
    files.fail = {"write": OSError(errno.EIO, "Input/output error")}
    with pytest.raises(Unavailable, match="Input/output error") as caught:
        house.run("s", ADD)
    assert caught.value.code == "not-applied"
    files.fail = {}
    with pytest.raises(Unavailable):
        house.run("s", ADD)
    assert bits(house.store.load("s")) == house.states["s"][-1], "reads go on"
    house.store.close()
    assert look(tmp_path / "a")[0] == {"s": house.states["s"][-1]}


def test_after_a_failed_sync_the_outcome_is_unknown_and_nothing_is_tried_again(tmp_path: Path) -> None:
    files = ForgetfulFiles()
    house = House(tmp_path / "a", files=files, sync="always")
    counted(house, "s", 1)
    files.fail = {"sync": OSError(errno.EIO, "Input/output error")}
    with pytest.raises(Unavailable) as caught:
        house.run("s", ADD)
    assert caught.value.code == "outcome-unknown"
    files.fail = {}
    with pytest.raises(Unavailable):
        house.run("s", ADD)
    house.store.close()


# ---------------------------------------------------------------- growing and shrinking


def test_old_segments_go_when_no_session_needs_them(tmp_path: Path) -> None:
    house = House(tmp_path / "a", segment_bytes=4000, log_bytes=20_000, snapshot_bytes=8000)
    counted(house, "idle", 1)
    counted(house, "busy", 0, **floats(100))
    for _ in range(200):
        house.run("busy", ADD)
        for id in house.store.heavy(lambda id: 0):
            house.store.save(id, house.sessions[id])
        house.store.tidy()
        assert sum(path.stat().st_size for path in (tmp_path / "a").glob("*.log")) < 32_000
    assert house.store.log.segments[0].number > 10
    assert len(list((tmp_path / "a" / "snapshots").iterdir())) == 2
    kill(house.store)
    assert look(tmp_path / "a")[0] == {id: states[-1] for id, states in house.states.items()}


def test_a_closed_session_leaves_nothing(tmp_path: Path) -> None:
    from engine.durability.store import Change

    house = House(tmp_path / "a", sync="always")
    for id in ("s", "u"):
        counted(house, id, 1)
        house.store.save(id, house.sessions[id])
    house.store.write([Change("close", "s", {"why": "its lease ran out"})])
    house.store.tidy()
    assert [path.name for path in (tmp_path / "a" / "snapshots").iterdir()] == ["u.3.safetensors"]
    kill(house.store)
    again = House(tmp_path / "a")
    assert list(again.store.kept) == ["u"]
    assert [row[:4] for row in again.store.ended] == [["ann", "s", None, "its lease ran out"]]
    kill(again.store)


def test_sessions_of_a_worker_that_is_no_more_are_taken_over(tmp_path: Path) -> None:
    old = House(tmp_path / "old")
    counted(old, "s", 2)
    counted(old, "u", 1)
    old.store.save("u", old.sessions["u"])
    kill(old.store)
    for _ in range(2):
        house = House(tmp_path / "new", adopt=[tmp_path / "old"] if (tmp_path / "old").exists() else [])
        assert {id: bits(house.store.load(id)) for id in house.store.kept} == {
            id: states[-1] for id, states in old.states.items()
        }
        assert not (tmp_path / "old").exists()
        kill(house.store)


def test_answers_are_kept_with_the_change_and_through_snapshots(tmp_path: Path) -> None:
    house = House(tmp_path / "a")
    counted(house, "s", 0)
    house.change("s", {"steps": [ADD]}, key=["POST /v1/programs k", "digest"])
    house.store.save("s", house.sessions["s"])
    house.change("s", {"steps": [ADD]}, key=["POST /v1/programs l", "other"])
    kill(house.store)
    again = House(tmp_path / "a")
    assert again.store.kept["s"].answers is None
    again.store.load("s")
    answers = again.store.kept["s"].answers
    assert answers is not None
    found = [answers.get(f"POST /v1/programs {key}") for key in ("k", "l", "m")]
    assert [answer and (answer.digest, answer.reply) for answer in found] == [
        ("digest", b"reply 2"),
        ("other", b"reply 3"),
        None,
    ]
    assert again.store.outcome("s", "c3") == b"reply 3"
    assert again.store.outcome("s", "c9") is False
    kill(again.store)


def test_a_rebuilt_session_can_be_run(tmp_path: Path) -> None:
    house = House(tmp_path / "a")
    counted(house, "s", 1, data=1.0)
    kill(house.store)
    again = House(tmp_path / "a")
    session = again.store.load("s")
    assert run(session, ADD, return_=["x"])["results"]["x"].values == 3.0
    kill(again.store)
