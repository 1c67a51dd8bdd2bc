"""Errors that were told leave nothing for the garbage collector, which comes late: each had the frames of its way."""

from __future__ import annotations

import gc
from types import FrameType
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from engine.errors import EngineError, Gone, let_go
from engine.service import Limits, Service
from tests.app.conftest import served

MANY = 20
REFUSED: list[tuple[str, str, Any, int]] = [
    ("POST", "/v1/ops/add", {"input": "nosuch", "other": 1}, 404),
    ("POST", "/v1/ops/mm", {"input": [[1.0]], "mat2": [[1.0], [2.0]]}, 422),
    ("POST", "/v1/ops/nosuch", {}, 404),
    ("POST", "/v1/programs", {"steps": [{"op": "add", "args": {"input": "q", "other": 1}}]}, 404),
    ("POST", "/v1/tensors", {"data": [1, "a"]}, 422),
    ("POST", "/v1/tensors/nosuch/backward", {}, 404),
    ("GET", "/v1/tensors/nosuch", None, 404),
    ("DELETE", "/v1/tensors/nosuch", None, 404),
    ("GET", "/v1/sessions/nosuch", None, 404),
    ("GET", "/v1/nowhere", None, 404),
]


def left() -> int:
    return sum(isinstance(found, EngineError | FrameType) for found in gc.get_objects())


def test_what_was_refused_is_freed_at_once() -> None:
    limits = Limits(session_bytes=1 << 20, server_bytes=1 << 24)
    with served(create_app(Settings(), Service("inline", limits=limits, threads=1))) as client:
        for collects in (True, False):  # at first there is much that is made once and stays
            gc.collect()
            if not collects:
                gc.disable()
            try:
                for method, path, body, status in REFUSED:
                    before = left()
                    for _ in range(MANY):
                        assert client.request(method, path, json=body).status_code == status
                    assert collects or left() - before < MANY, f"{method} {path}"
            finally:
                gc.enable()


def test_an_error_forgets_its_way_and_that_of_its_reasons() -> None:
    def fail() -> None:
        try:
            raise KeyError("a")
        except KeyError as reason:
            raise Gone("b") from reason

    with pytest.raises(Gone) as caught:
        fail()
    error = caught.value
    assert error.__cause__ is not None
    error.__cause__.__context__ = error  # as careless code may leave it
    let_go(error)
    assert error.__traceback__ is None
    assert error.__cause__.__traceback__ is None
    assert error.detail == "b"
