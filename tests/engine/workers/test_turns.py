"""Fairness as a simulation: no clock but the seconds that turns are said to have taken."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.workers.turns import CREDIT, Turns


class Line:
    def __init__(self, owner: str, calls: int = 0, *, quick: bool = False) -> None:
        self.owner = owner
        self.calls = deque([quick] * calls)

    @property
    def quick(self) -> bool:
        return self.calls[0]


def turn(turns: Turns[Line], seconds: float = 0.001, *, ends: bool = False) -> Line | None:
    """One turn of `seconds`; `ends`: the call is over, else it has more steps."""
    line = turns.pick()
    if line is not None:
        if ends:
            line.calls.popleft()
        turns.put_back(line, seconds)
    return line


def test_nothing_to_do() -> None:
    assert Turns[Line]().pick() is None


def test_sessions_of_an_owner_rotate() -> None:
    turns, lines = Turns[Line](), [Line("a", 1) for _ in range(3)]
    for line in lines:
        turns.enter(line)
    assert [turn(turns) for _ in range(6)] == lines * 2


def test_ten_sessions_of_one_owner_get_as_much_as_one_of_another() -> None:
    turns = Turns[Line]()
    for _ in range(10):
        turns.enter(Line("greedy", 1))
    turns.enter(Line("modest", 1))
    got = Counter(line.owner for _ in range(200) if (line := turn(turns)))
    assert abs(got["greedy"] - got["modest"]) <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-5, 0.5), min_size=2, max_size=6), st.data())
def test_owners_share_time_whatever_their_steps_cost(costs: list[float], data: st.DataObject) -> None:
    turns, used = Turns[Line](), defaultdict[str, float](float)
    for i in range(len(costs)):
        for _ in range(data.draw(st.integers(1, 4))):
            turns.enter(Line(str(i), 1))
    for _ in range(300):
        line = turns.pick()
        assert line is not None
        cost = costs[int(line.owner)]
        used[line.owner] += cost
        turns.put_back(line, cost)
    # Nobody is ahead of anybody by more than one turn.
    shares = [used[str(i)] for i in range(len(costs))]
    assert max(shares) - min(shares) <= max(costs) * 1.000001


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=5), st.integers(0, 300), st.floats(1e-4, 1.0))
def test_who_comes_waits_for_at_most_one_turn_of_each_other_owner(
    sessions: list[int], before: int, seconds: float
) -> None:
    """However many sessions each of them keeps busy, and however long that has been going on."""
    turns = Turns[Line]()
    for i, count in enumerate(sessions):
        for _ in range(count):
            turns.enter(Line(f"greedy-{i}", 1))
    for _ in range(before):
        turn(turns, seconds)
    modest = Line("modest", 1)
    turns.enter(modest)
    came = [turn(turns, seconds) for _ in range(len(sessions) + 1)]
    assert modest in came


def test_idle_time_is_not_saved_up() -> None:
    turns, early, late = Turns[Line](), Line("early", 1), Line("late", 1)
    turns.enter(early)
    for _ in range(1000):
        turn(turns)
    turns.enter(late)
    got = Counter(line.owner for _ in range(100) if (line := turn(turns)))
    assert abs(got["early"] - got["late"]) <= 2


def test_what_was_overdrawn_is_not_forgotten_by_going_away() -> None:
    """An owner who sends one long program after the other must not come first each time it comes back."""
    turns, steady, bursts = Turns[Line](), Line("steady", 1), Line("bursts", 0)
    turns.enter(steady)
    used = defaultdict[str, float](float)
    for _ in range(2000):
        if not bursts.calls:
            bursts.calls.append(False)
            turns.enter(bursts)
        line = turns.pick()
        assert line is not None
        seconds = 0.1 if line is bursts else 0.001
        if line is bursts:
            line.calls.popleft()
        used[line.owner] += seconds
        turns.put_back(line, seconds)
    assert used["bursts"] == pytest.approx(used["steady"], rel=0.1)


def test_queries_come_before_the_programs_of_others() -> None:
    turns, program, query = Turns[Line](), Line("a", 1), Line("b", 1, quick=True)
    turns.enter(program)
    turn(turns)
    turns.enter(query)
    assert turn(turns, ends=True) is query
    assert turn(turns) is program


def test_a_flood_of_queries_does_not_stop_the_programs_of_others() -> None:
    turns, program = Turns[Line](), Line("modest", 1)
    turns.enter(program)
    for _ in range(50):
        turns.enter(Line("flood", 1000, quick=True))
    used = Counter[str]()
    for _ in range(2000):
        line = turn(turns, 0.001)
        assert line is not None
        used[line.owner] += 1
    assert used["flood"] - used["modest"] == pytest.approx(CREDIT / 0.001, abs=2)


def test_a_query_behind_a_program_waits_for_it_and_then_is_quick_again() -> None:
    turns, line, other = Turns[Line](), Line("a"), Line("b", 1)
    line.calls.extend([False, True])
    turns.enter(line)
    turns.enter(other)
    assert turn(turns, ends=True) is line
    assert turn(turns, ends=True) is line  # the query, before the other's program
    assert turn(turns) is other


def test_cancelled_calls_leave_no_trace() -> None:
    turns, line, other = Turns[Line](), Line("a", 1), Line("a", 1)
    turns.enter(line)
    turns.enter(line)  # said twice
    turns.enter(other)
    line.calls.clear()
    assert turns.pick() is other
    turns.put_back(other, 0.0)
    line.calls.append(True)
    turns.enter(line)
    assert turns.pick() is line
    line.calls.clear()
    turns.put_back(line, 0.0)
    other.calls.clear()
    assert turns.pick() is None


def test_a_query_that_was_cancelled_before_a_program_gives_no_precedence() -> None:
    turns, line, other = Turns[Line](), Line("a"), Line("b", 1)
    line.calls.extend([True, False])
    turns.enter(other)
    turns.enter(line)
    line.calls.popleft()
    assert turns.pick() is other


def test_owners_who_are_gone_are_forgotten() -> None:
    turns = Turns[Line]()
    for i in range(5000):
        turns.enter(Line(str(i), 1))
        while turn(turns, 1e-6, ends=True):
            pass
    assert len(turns._owners) < 2000
