"""What `--workers` means, and how the end of a worker is said."""

from __future__ import annotations

import pytest

from engine.errors import Invalid
from engine.workers.plans import WorkerSpec, plan_workers
from engine.workers.transports import describe_exit


@pytest.mark.parametrize(
    "spec, gpus, expected",
    [
        ("auto", [], [("cpu-0", ("cpu",))]),
        ("auto", ["cuda:0", "cuda:1"], [("cuda-0", ("cpu", "cuda:0")), ("cuda-1", ("cpu", "cuda:1"))]),
        ("inline", ["cuda:0"], [("inline", ("cpu", "cuda:0"))]),
        ("cpu:2, cuda:1", [], [("cpu-0", ("cpu",)), ("cpu-1", ("cpu",)), ("cuda-1", ("cpu", "cuda:1"))]),
    ],
)
def test_plans(spec: str, gpus: list[str], expected: list[tuple[str, tuple[str, ...]]]) -> None:
    planned = plan_workers(spec, gpus)
    assert [(one.name, one.devices) for one in planned] == expected
    assert all(one.inline == (spec == "inline") for one in planned)


@pytest.mark.parametrize("spec", ["", "cpu", "cpu:0", "cpu:x", "gpu:1", "cuda:-1", "cpu:1,cpu:1", "cpu:99999", "cpu:²"])
def test_plans_that_are_none(spec: str) -> None:
    with pytest.raises(Invalid):
        plan_workers(spec)


def test_a_worker_spec_is_a_value() -> None:
    assert WorkerSpec("a", ("cpu",)) == WorkerSpec("a", ("cpu",), inline=False, practice=False)


@pytest.mark.parametrize("status, words", [(0, "status 0"), (-9, "SIGKILL"), (-64, "SIGRTMAX"), (-100, "signal 100")])
def test_exits_in_words(status: int, words: str) -> None:
    assert words in describe_exit(status)
