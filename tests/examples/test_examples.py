"""The examples and the README's tour, run as a newcomer would: against a server in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server with a worker process, as `make serve` starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CURLGRAD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--port", "0", "--data-dir", "none"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        found = re.search(r"http://127\.0\.0\.1:(\d+);", process.stderr.readline())
        assert found
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stderr
        process.stderr.close()


def run(server: str, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CURLGRAD_URL": server},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_digits_are_learned_from_real_images(server: str) -> None:
    said = run(server, sys.executable, "examples/digits.py", "--url", server)
    accuracies = [float(a) for a in re.findall(r"accuracy on held-out images ([0-9.]+)", said)]
    assert len(accuracies) == 5
    assert accuracies[-1] >= 0.95


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_first_steps(server: str) -> None:
    said = run(server, "sh", "examples/first_steps.sh")
    assert "tensor([[ 0.0461,  0.4024, -1.0115],\n        [ 0.2167, -0.6123,  0.5036]])" in said
    assert "tensor([[7.0000, 7.0000],\n        [3.0000, 4.5000]])" in said
    assert "expected m1 and m2 to have the same dtype, but got: long int != float" in said
    assert "tensor([ 3.0000, -4.0000,  0.5000])" in said


@needs_curl
def test_the_tour_of_the_readme(server: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    calls = [c for block in blocks for c in re.findall(r"curl http(?:'[^']*'|[^\n'])*", block)]
    assert len(calls) >= 10
    answers = []
    for call in calls:
        said = run(server, "sh", "-c", call.replace("http://127.0.0.1:8000", server).replace("curl ", "curl -sS ", 1))
        answers.append(json.loads(said))
    refused = [a for a in answers if "status" in a]
    assert [a["code"] for a in refused] == ["dtype-mismatch"], "only the last call is meant to be refused"
    losses = next(a for a in answers if "collected" in a)["collected"]["loss"]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
