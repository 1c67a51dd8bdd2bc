"""Programs that are often wrong, over the whole registry: refusals have a code, and leave the session bit for bit.

The same walk without hypothesis starts from numbers, which are cheap; hypothesis's part finds small examples.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.session import Session
from tests.fuzz import hostile

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]
PARTS = 8


def holds(rng: Random, how: int, session: Session | None = None) -> Session | None:
    """Runs one program; the session, if it may serve again."""
    session = session or hostile.session()
    error = hostile.run_as_worker(session, hostile.program(rng), how)
    return None if error is None else session


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
