"""Jobs in a worker, turn by turn."""

from __future__ import annotations

from typing import Any

import pytest

from engine.limits import Limits
from engine.session import Session
from engine.workers.worker import TICK, Worker
from tests.engine.programs import step
from tests.engine.workers.fakes import LIMITS, FakeSession
from tests.engine.workers.test_worker import Front, House


class Jobs(House):
    """A worker with a time of day, and what a front says of jobs."""

    def __init__(self, limits: Limits = LIMITS, factory: Any = FakeSession) -> None:
        super().__init__()
        self.time = 5000.0
        self.worker = Worker("w", ["cpu"], limits, session_factory=factory, clock=self.clock, wall=lambda: self.time)

    def ask(self, do: str, **fields: Any) -> Any:
        reply = self.front.of(self.say(do, **fields))
        if "error" in reply:
            raise AssertionError(reply["error"]["code"])
        return reply["ok"]

    def job(self, id: str, session: str, *ops: Any, **fields: Any) -> dict[str, Any]:
        steps = [{"op": op} if isinstance(op, str) else op for op in ops]
        facts = {"program": {"steps": steps}, "values": "auto", "explain": False, "about": {"n": id}, **fields}
        found: dict[str, Any] = self.ask("job", session=session, job=id, **facts)
        return found

    def look(self, id: str, owner: str = "ann", **how: Any) -> Any:
        return self.ask("look", owner=owner, job=id, **how)

    def state(self, id: str) -> tuple[str, int | None]:
        found = self.look(id)
        return found["state"], found["position"]


@pytest.fixture
def house() -> Jobs:
    made = Jobs()
    made.open("a")
    made.open("b")
    made.finish()
    return made


LONG = {"op": "noop", "times": 100}
SLOW = 0.01  # seconds that each look at the clock takes: one step, and the turn is over


def test_a_job_is_queued_runs_and_is_done(house: Jobs) -> None:
    house.clock.pace = SLOW
    taken = house.job("j1", "a", LONG, "add")
    assert (taken["state"], taken["position"], taken["created"], taken["about"]) == ("queued", 0, 5000.0, {"n": "j1"})
    house.worker.work()
    running = house.look("j1")
    assert (running["state"], running["position"], running["steps_run"]) == ("running", None, 1)
    house.worker.work()
    assert house.look("j1")["steps_run"] == 2
    house.time = 5010.0
    house.finish()
    done = house.look("j1", result=True)
    assert (done["state"], done["ended"], done["kept_until"]) == ("done", 5010.0, 5010.0 + LIMITS.jobs_s)
    assert (done["steps_run"], done["steps"], done["problem"]) == (101, 101, None)
    assert done["reply"] == {"results": {}, "steps_run": 101}
    assert done["seconds"] > 0


def test_the_position_counts_the_calls_of_the_same_session(house: Jobs) -> None:
    house.clock.pace = SLOW
    house.job("j1", "a", LONG)
    house.run("a", "noop")
    house.job("j2", "a", "noop")
    house.job("j3", "b", LONG)
    house.job("j4", "b", "noop")
    assert [house.state(j) for j in ("j1", "j2", "j3", "j4")] == [
        ("queued", 0), ("queued", 2), ("queued", 0), ("queued", 1),
    ]  # fmt: skip
    house.worker.work()
    house.worker.work()  # the sessions of one owner take turns
    assert [house.state(j) for j in ("j1", "j3")] == [("running", None)] * 2
    house.say("drop", owner="ann", job="j3")
    assert house.state("j4") == ("queued", 0)
    house.finish()
    assert [house.state(j)[0] for j in ("j1", "j2", "j3", "j4")] == ["done", "done", "cancelled", "done"]


def test_a_job_keeps_its_place_between_other_calls(house: Jobs) -> None:
    house.run("a", "add")
    house.job("j1", "a", "number")
    house.run("a", "add")
    house.finish()
    assert house.look("j1", result=True)["reply"]["results"] == {"n": 1}


def test_a_queued_job_is_cancelled(house: Jobs) -> None:
    first = house.run("a", "add")
    house.job("j1", "a", "add", "add")
    assert house.ask("drop", owner="ann", job="j1") is True
    assert house.state("j1") == ("cancelled", None)
    assert house.ask("drop", owner="ann", job="j1") is False
    house.finish()
    assert house.front.of(first)["ok"]["steps_run"] == 1
    assert house.worker.sessions.seats["a"].session.variables == {"n": 1}  # type: ignore[union-attr]
    assert house.look("j1", result=True)["reply"] is None


def test_a_running_job_is_cancelled_and_undone(house: Jobs) -> None:
    house.clock.pace = SLOW
    house.run("a", "add")
    house.finish()
    house.job("j1", "a", {"op": "add", "times": 100})
    for _ in range(5):
        house.worker.work()
    assert house.worker.sessions.seats["a"].session.variables == {"n": 6}  # type: ignore[union-attr]
    assert house.ask("drop", owner="ann", job="j1") is True
    assert house.state("j1") == ("cancelled", None)
    assert house.look("j1")["steps_run"] == 5
    assert house.worker.sessions.seats["a"].session.variables == {"n": 1}  # type: ignore[union-attr]


def test_a_job_that_fails_says_why(house: Jobs) -> None:
    house.job("j1", "a", "add", "refuse")
    house.finish()
    found = house.look("j1", result=True)
    assert (found["state"], found["problem"]["class"], found["reply"]) == ("failed", "NoSuchTensor", None)
    assert house.worker.sessions.seats["a"].session.variables == {}  # type: ignore[union-attr]


def test_a_job_ends_with_its_session(house: Jobs) -> None:
    house.say("close", session="a")
    house.job("j1", "a", "noop")
    house.finish()
    assert house.look("j1")["problem"]["class"] == "NoSuchSession"


def test_what_is_another_owners_is_not_there(house: Jobs) -> None:
    house.job("j1", "a", "noop")
    assert house.look("j1", owner="bob") is None
    assert house.ask("drop", owner="bob", job="j1") is None
    assert house.ask("jobs", owner="bob") == []
    assert house.look("j2") is None
    assert [job["job"] for job in house.ask("jobs", owner="ann")] == ["j1"]
    assert house.state("j1")[0] == "queued"


def test_a_job_outlives_the_front_that_asked(house: Jobs) -> None:
    house.job("j1", "a", "add", waiter=99)
    house.worker.receive(house.front, None)
    house.front = Front()
    house.finish()
    assert house.state("j1")[0] == "done"
    assert house.front.answered().count(99) == 0


def test_who_waits_is_told_the_whole_answer(house: Jobs) -> None:
    house.job(
        "j1", "a", {"op": "allocate", "args": {"bytes": 2 << 20}}, {"op": "return", "args": {"name": "big"}}, waiter=99
    )
    house.finish()
    told = house.front.of(99)["ok"]["results"]["big"]
    assert told.values.nbytes == 2 << 20
    kept = house.look("j1", result=True)["reply"]["results"]["big"]
    assert (kept.values, kept.shape) == (None, told.shape)
    house.job("j1", "a", "noop", waiter=100)  # sent again: it is known
    assert house.front.of(100)["ok"]["results"]["big"].values is None
    house.job("j2", "a", "refuse", waiter=101)
    house.finish()
    assert house.front.of(101)["error"]["class"] == "NoSuchTensor"
    house.job("j2", "a", "refuse", waiter=102)
    assert house.front.of(102)["error"]["class"] == "NoSuchTensor"


def test_the_same_key_is_the_same_job(house: Jobs) -> None:
    once = {"key": "k", "digest": "d"}
    assert house.job("j1", "a", "add", **once)["job"] == "j1"
    assert house.job("j2", "a", "add", **once)["job"] == "j1"
    with pytest.raises(AssertionError, match="idempotency-key-reused"):
        house.job("j3", "a", "add", key="k", digest="other")
    assert house.job("j4", "b", "add", **once)["job"] == "j4"  # keys are a session's
    house.finish()
    assert house.job("j5", "a", "add", **once)["job"] == "j1"
    assert house.worker.sessions.seats["a"].session.variables == {"n": 1}  # type: ignore[union-attr]


@pytest.mark.parametrize("ending", ["refuse", "cancel"])
def test_a_key_of_a_job_that_changed_nothing_may_be_used_again(house: Jobs, ending: str) -> None:
    house.job("j1", "a", "refuse" if ending == "refuse" else "add", key="k", digest="d")
    if ending == "cancel":
        house.say("drop", owner="ann", job="j1")
    house.finish()
    assert house.job("j2", "a", "add", key="k", digest="d")["job"] == "j2"


def test_as_many_are_kept_as_the_limit_says_and_as_long() -> None:
    house = Jobs(Limits(session_bytes=1 << 30, server_bytes=4 << 30, max_jobs=3, jobs_s=60.0))
    for name, owner in (("a", "ann"), ("b", "bob")):
        house.open(name, owner)
        for n in range(5):
            house.job(f"{name}{n}", name, "noop")
    house.finish()
    assert [job["job"] for job in house.ask("jobs", owner="ann")] == ["a2", "a3", "a4"]
    assert [job["job"] for job in house.ask("jobs", owner="bob")] == ["b2", "b3", "b4"]
    assert house.look("a1") is None
    house.job("a9", "a", "noop")
    house.time += 61
    assert house.look("a4") is None
    assert [job["job"] for job in house.ask("jobs", owner="ann")] == ["a9"]  # what has not ended stays
    house.clock.now += TICK
    house.worker.tick()
    assert house.ask("jobs", owner="bob") == []


def test_a_full_line_takes_no_job() -> None:
    house = Jobs(Limits(session_bytes=1 << 30, server_bytes=4 << 30, max_queue=2))
    house.open("a")
    house.job("j1", "a", "noop")
    house.run("a", "noop")
    with pytest.raises(AssertionError, match="queue-full"):
        house.job("j2", "a", "noop")
    assert house.look("j2") is None
    with pytest.raises(AssertionError, match="moved"):
        house.job("j3", "nowhere", "noop")


# ---------------------------------------------------------------- with the engine's sessions

TRAIN = [
    {
        "repeat": 40,
        "steps": [step("mul", "x", input="x", other=0.5), step("sum", "loss", input="x")],
        "collect": {"loss": 10},
    },
    {"repeat": 2, "steps": [{"repeat": 3, "steps": [step("add", "y", input="x", other=1)]}]},
]
START = {"x": {"data": [8.0, 8.0]}}


def real(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A worker whose turns are one step, or some planned rounds."""
    monkeypatch.setattr("engine.session.SLICE_S", -1.0)
    house = Jobs(factory=Session)
    house.open("a")
    house.job("j1", "a", program={"inputs": START, "steps": TRAIN, "return": ["loss"], "keep": {"x": "x"}})
    return house


def test_progress_and_collected_values_are_read_off_a_running_program(monkeypatch: pytest.MonkeyPatch) -> None:
    house = real(monkeypatch)
    house.clock.pace = SLOW
    seen: list[int] = []
    values: list[float] = []
    states = []
    while house.look("j1")["state"] != "done":
        house.worker.work()
        found = house.look("j1", seen=seen)
        seen = found["seen"]
        values += found["collected"].get("loss", [])
        states.append((found["rounds"], found["of"], found["steps_run"]))
        assert found["steps"] in (86, None)
    assert values == [16 * 0.5**n for n in (10, 20, 30, 40)]
    assert ([1], [40], 1) in states
    assert ([1, 2], [2, 3], 82) in states
    planned = [rounds for rounds, of, _ in states if of == [40]]
    assert planned == sorted(planned)
    assert [10] in planned  # a plan's rounds end where something is collected
    done = house.look("j1", seen=[], result=True)
    assert done["reply"]["collected"] == done["collected"] == {"loss": values}
    assert done["reply"]["plans"][0]["rounds"] == 38
    assert house.look("j1", seen=[3])["collected"] == {"loss": values[3:]}
    assert house.look("j1", seen=[9])["seen"] == [9]


def test_a_job_is_cancelled_between_planned_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    house = real(monkeypatch)
    house.clock.pace = SLOW
    for _ in range(200):
        if house.look("j1")["rounds"] == [20]:
            break
        house.worker.work()
    assert house.ask("drop", owner="ann", job="j1") is True
    found = house.look("j1")
    assert (found["state"], found["rounds"], found["steps_run"]) == ("cancelled", [20], 40)
    assert house.worker.sessions.seats["a"].session.query({"do": "info"})["tensors"] == 0  # type: ignore[union-attr]
    house.job("j2", "a", program={"inputs": START, "steps": TRAIN, "return": ["loss"]})
    house.finish()
    assert house.state("j2")[0] == "done"


def test_many_collected_values_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.workers.jobs.MOST_SEEN", 3)
    house = real(monkeypatch)
    house.finish()
    first = house.look("j1", seen=[])
    assert (len(first["collected"]["loss"]), first["seen"], first["more"]) == (3, [3], True)
    second = house.look("j1", seen=first["seen"])
    assert (len(second["collected"]["loss"]), second["seen"], second["more"]) == (1, [4], False)


def test_the_last_program_is_not_told_as_the_progress_of_one_that_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    house = real(monkeypatch)
    house.finish()
    house.job("j2", "a", program={"steps": [{"op": "nothing"}]})
    house.finish()
    found = house.look("j2")
    assert (found["state"], found["steps_run"], found["steps"]) == ("failed", 0, None)
