"""schemathesis against a running service: what the OpenAPI documents say of requests and answers is what happens.

    make test-fuzz                              the short form, as in CI: some families of operations
    make test-fuzz ARGS='--requests long'       all of them, more than 100,000 requests: hours where the machine is busy

Every check but two: `positive_data_acceptance` wants whatever fits the schema to be accepted, but whether tensors fit
together, exist or are numbers at all (CSV) is not for a schema to say. A 5xx fails, but for 507: so is answered who
asks for more memory than there may be, which the limits below make likely. In scenarios of several calls a session that
was made need not be there afterwards either: an Idempotency-Key that comes again is answered as the first time, though
the session was deleted since.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from random import Random
from typing import NamedTuple

import httpx
import pytest

from app import keys
from tests.processes import Served, serving

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(7200)]

SMALL = [
    *("--workers", "cpu:1", "--max-rate", "0", "--max-body", "1MiB", "--log-level", "error"),
    *("--session-bytes", "32MiB", "--server-bytes", "256MiB"),
    *("--max-steps", "100", "--max-rounds", "100", "--max-run", "1000", "--max-nesting", "4"),
]
# In the core document /v1/ops/{op} has GET alone: the operations' own documents have POST.
TEMPLATED = "/v1/ops/{op}"
# Takes a safetensors file alone, which schemathesis cannot write; test_bodies has those.
SNAPSHOT = "/v1/sessions/{id}/snapshot"
# A DELETE of a job cancels it: what has ended stays to be read.
JOBS = "without=use_after_free"
POSTS = "without=unsupported_method,allow_header_conformance"
CORE = ("--exclude-path", TEMPLATED, "--exclude-path", SNAPSHOT, JOBS)
ANSWER_S = 60  # more than any request may take, however busy the machine is


CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "507"]
"""


class Found(NamedTuple):
    """How many requests were made, and what schemathesis says against the answers."""

    requests: int
    problems: str


def schemathesis(served: Served, document: str, folder: Path, *options: str) -> Found:
    """Walks through a document. Fails where there was none to walk through."""
    program = os.environ.get("SCHEMATHESIS", "schemathesis")
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [str(Path(program).absolute()) if os.sep in program else program, "--config-file", str(config), "run"]
    command += [f"{served.url}/openapi/{document}.json", "--checks", "all", "--continue-on-failure", "--no-color"]
    command += [
        "--exclude-checks",
        ",".join(["positive_data_acceptance", "ensure_resource_availability", *excluded(options)]),
    ]
    command += ["--suppress-health-check", "all", "--generation-database", "none", "--warnings", "off"]
    command += ["--request-timeout", str(ANSWER_S), *[o for o in options if not o.startswith("without=")]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout[-6000:] + done.stderr[-2000:]
    print(f"{document}: {generated[1]} requests", flush=True)
    problems = f"{document}: {done.stdout[-6000:]}{done.stderr[-2000:]}" if done.returncode else ""
    return Found(int(generated[1]), problems + (f"{document}: {served.bugs}" if served.bugs else ""))


def excluded(options: tuple[str, ...]) -> list[str]:
    return [check for option in options if option.startswith("without=") for check in option[8:].split(",")]


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--requests") == "long")


def walk(served: Served, folder: Path, long: bool, seed: int, *options: str) -> int:
    """The core document, and some or all families of operations."""
    found = httpx.get(f"{served.url}/openapi/index.json").json()["documents"]
    families = [entry["name"] for entry in found if entry["name"] != "core"]
    if not long:
        families = Random(seed).sample(sorted(families, key=str), 2)
    many = ["--seed", str(seed), *options]
    found = [
        schemathesis(served, "core", folder, *many, "-n", "60" if long else "8", *CORE),
        schemathesis(served, "core", folder, *many, "-n", "20", "--include-path", TEMPLATED, POSTS),
    ]
    found += [schemathesis(served, family, folder, *many, "-n", "2", POSTS) for family in families]
    problems = [one.problems for one in found if one.problems]
    assert not problems, "\n\n".join(problems)
    return sum(one.requests for one in found)


def test_without_keys(tmp_path: Path, long: bool, seed: int) -> None:
    with serving(tmp_path, *SMALL) as served:
        count = walk(served, tmp_path, long, seed)
        print(f"without keys: {count} requests")
        assert count >= (15_000 if long else 300)


def test_with_keys(tmp_path: Path, long: bool, seed: int) -> None:
    path = tmp_path / "keys.json"
    ((_, text),) = keys.create(path, ["ann"], ["read", "write", "metrics", "admin"])
    with serving(tmp_path, *SMALL, "--keys-file", str(path)) as served:
        many = ["--seed", str(seed), "-H", f"Authorization: Bearer {text}"]
        many += ["-n", "120" if long else "5", *CORE]
        count, problems = schemathesis(served, "core", tmp_path, *many)
        print(f"with keys: {count} requests")
        assert not problems, problems
        assert count >= (5_000 if long else 300)
