"""Programs that are often wrong, over the whole registry: refusals have a code, and leave the session bit for bit.

The same walk without hypothesis starts from numbers, which are cheap; hypothesis's part finds small examples.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import Bug, EngineError
from engine.session import Session
from tests.engine.programs import state
from tests.fuzz import hostile

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]
PARTS = 8


def refusal(session: Session, program: dict[str, Any], how: int) -> EngineError | None:
    """Runs a program as a worker does, one way or another; what it was refused with."""
    try:
        values = "all" if how % 3 == 0 else "none"
        for _ in session.run(program, values=values, dry_run=how % 11 == 0, explain=how % 13 == 1):
            pass
    except EngineError as error:
        # As the worker does: a traceback holds the frames of the program, and they its tensors.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error
    return None


def holds(rng: Random, how: int, session: Session | None = None) -> Session | None:
    """Runs one program; the session, if it may serve again."""
    session = session or hostile.session()
    before = state(session)
    program = hostile.program(rng)
    error = refusal(session, program, how)
    if error is None:
        return session if how % 11 == 0 and how % 13 != 1 else None
    assert not isinstance(error, Bug), (program, error.detail)
    assert error.code not in ("error", "internal-error"), program
    json.dumps(error.to_data())
    assert state(session) == before, program
    return session


@pytest.mark.parametrize("part", range(PARTS))
def test_random_programs(part: int, examples: int, seed: int) -> None:
    session: Session | None = None
    for number in range(part, 40 * examples, PARTS):
        try:
            session = holds(Random(f"{seed} {number}"), number, session)
        except Exception as problem:
            problem.add_note(f"seed {seed}, number {number}: {hostile.program(Random(f'{seed} {number}'))}")
            raise


@pytest.mark.parametrize("how", [0, 1, 2])
def test_small_programs(how: int, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def any_program(rng: Random) -> None:
        holds(rng, how)

    any_program()
