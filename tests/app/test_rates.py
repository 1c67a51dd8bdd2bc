"""How often a caller may send."""

from __future__ import annotations

from app.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(2, burst=3, clock=clock)
    assert [rates.wait("a") for _ in range(3)] == [0, 0, 0]
    assert rates.wait("a") == 0.5
    clock.now += 0.25
    assert rates.wait("a") == 0.25  # what was refused took nothing
    clock.now += 0.25
    assert rates.wait("a") == 0
    assert rates.wait("a") == 0.5


def test_callers_do_not_share_a_bucket() -> None:
    rates = Rates(1, burst=1, clock=Clock())
    assert rates.wait("a") == 0
    assert rates.wait("b") == 0
    assert rates.wait("a") > 0


def test_a_rate_of_zero_is_no_limit() -> None:
    rates = Rates(0)
    assert not any(rates.wait("a") for _ in range(1000))


def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    rates = Rates(10, clock=clock)
    for i in range(1024):
        rates.wait(f"caller {i}")
    clock.now += 60
    rates.wait("one more")
    assert len(rates._buckets) == 1
