"""How much the fuzz tests do."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, default=100, help="examples that each fuzz test starts from")
    parser.addoption("--requests", choices=["short", "long"], default="short", help="how many schemathesis makes")
    parser.addoption("--fuzz-seed", type=int, default=1, help="where the fuzz tests' random numbers start")


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    found: int = request.config.getoption("--examples")
    return found


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    found: int = request.config.getoption("--fuzz-seed")
    return found
