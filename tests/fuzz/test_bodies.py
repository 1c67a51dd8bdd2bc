"""Every codec on bodies that hypothesis mutates: each is read rightly, or refused with a code. `make test-fuzz`."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.bodies import CHECKS, check, mutated, seeds

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("kind", CHECKS)
def test_good_bodies_are_read(kind: str) -> None:
    found = [check(kind, body) for body in seeds(kind)]
    also = {"raw": {"wrong-length", "malformed"}, "png": {"picture-depth"}}
    assert set(found) <= {"read", *also.get(kind, set())}
    assert "read" in found


@pytest.mark.parametrize("kind", CHECKS)
def test_any_body_is_read_or_refused(kind: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def any_body(rng: Random) -> None:
        check(kind, mutated(rng, kind))

    any_body()
    for seed in range(10 * examples):
        check(kind, mutated(Random(seed), kind))
