"""`make test-gpu` without a GPU: it refuses in words, and its parts hold on the stand-in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engine import backend
from engine.backend import simulated_cuda
from engine.simulated import raw
from scripts import gpu, without_gpu
from tests.laws.planned import array_code

ROOT = Path(__file__).resolve().parent.parent
CUDA = simulated_cuda()


def test_without_a_gpu_it_says_so_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend, "_cupy", lambda: (None, "CuPy finds no CUDA device"))
    monkeypatch.setattr(backend, "_BACKENDS", {"cpu": backend.CPU})
    before = gpu.PAGE.read_text("utf-8")
    assert gpu.main([]) == 2
    said = capsys.readouterr()
    assert "there is no device cuda:0 on this machine: CuPy finds no CUDA device" in said.err
    assert "Nothing was run" in said.err
    assert said.out == ""
    assert gpu.PAGE.read_text("utf-8") == before


def test_random_programs_on_both() -> None:
    assert gpu.programs("cuda:0", 60) == "60 random programs give the same on both"


def test_random_programs_are_different_and_long() -> None:
    made = [gpu.random_program(seed) for seed in range(40)]
    assert made[0] == gpu.random_program(0)
    assert len({str(p) for p in made}) == 40
    ops = {step["op"] for p in made for step in p["steps"]}
    assert {"matmul", "gather", "mul_", "select", "getitem", "softmax", "backward"} <= ops


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = gpu.outcome

    def wrong(program: gpu.Program, device: str) -> dict[str, object]:
        found = outcome(program, device)
        if device != "cpu":
            found = {name: v if v is None else np.asarray(v) * 1.01 + 0.001 for name, v in found.items()}
        return found

    monkeypatch.setattr(gpu, "outcome", wrong)
    with pytest.raises(gpu.Failed, match="results differ"):
        gpu.programs("cuda:0", 3)


needs_compiler = pytest.mark.skipif(raw.compiler() is None, reason="there is no C++ compiler here")


@needs_compiler
def test_fused_kernels_are_tried() -> None:
    told = gpu.fused("cuda:0", CUDA, 3)
    assert re.match(r"\d+ kernels and 2 loops \([2-9] kernels a round\); ulps apart: \w", told)


@needs_compiler
def test_a_loop_without_kernels_is_found() -> None:
    with array_code("cuda:0"), pytest.raises(gpu.Failed, match="does not run by fused kernels"):
        gpu._loop_agrees("cuda:0", "gelu")


def test_out_of_memory_is_tried() -> None:
    assert "the same session went on" in gpu.exhausted("cuda:0", CUDA)


def test_the_benchmark_table_has_a_row_for_each_task() -> None:
    table = gpu.benchmarks("cuda:0", CUDA, short=True).splitlines()
    assert len(table) == 2 + len(gpu.tasks(True)) + 2 * len(gpu.LOOPS)
    assert all(re.fullmatch(r"\| .+ \| [\d.]+ \| [\d.]+ \| ?([\d.]+ )?\|", row) for row in table[2:])


def test_the_suites_are_there() -> None:
    assert all((ROOT / suite).exists() for suite in gpu.SUITES)


def test_the_page_says_what_was_run_or_that_nothing_was() -> None:
    page = gpu.PAGE.read_text("utf-8")
    told = page.partition(gpu.START)[2].partition(gpu.END)[0]
    if "Run on" in told:
        assert re.search(r"Run on \d{4}-\d\d-\d\d: .+, CUDA driver \d+", told)
    else:
        assert told.strip() == "Nothing yet: no device, no date, no figure."
        assert "**Nothing of this project has ever run on a GPU.**" in page


def test_the_part_of_a_set_without_a_gpu() -> None:
    part = without_gpu.part((ROOT / "requirements" / "cuda12.txt").read_text("utf-8"))
    names = [line.partition("==")[0] for line in part.splitlines()]
    assert {"cupy-cuda12x", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12", "numpy", "scipy"} <= set(names)
    assert not {"nvidia-cublas-cu12", "nvidia-cusolver-cu12", "cuda-toolkit"} & set(names)
    assert all("--hash=sha256:" in line for line in part.splitlines())
