"""A beginner's mistakes: each has the answer it should have, and what its hint says, followed literally, mends it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from engine.service import Service, WorkerSpec
from tests.app.conftest import served

DATA = tomllib.loads((Path(__file__).parent / "mistakes.toml").read_text())
MISTAKES = DATA["mistake"]
TORCH = json.loads((Path(__file__).parents[1] / "data" / "mistakes.json").read_text())["words"]
CALL = re.compile(r"(GET|POST|PATCH|DELETE) (/v1/[^\s,;:)]+)(?: (?=\{))?")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A service with a CPU and a simulated CUDA device."""
    service = Service([WorkerSpec("inline", ("cpu", "cuda:0"), inline=True, practice=True)])
    with served(create_app(Settings(), service)) as found:
        yield found


@pytest.fixture(autouse=True)
def setup(client: httpx.Client) -> Iterator[None]:
    for call in DATA["setup"]:
        assert send(client, call["call"], call["body"]).status_code in (200, 201), call
    yield
    assert client.delete("/v1/sessions/default").status_code == 204


def send(client: httpx.Client, call: str, body: str) -> httpx.Response:
    """Sends `POST ops/sum` and its body as text; `FORM` is a POST of fields."""
    method, path = call.split(" ")
    form = method == "FORM"
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    content = {"content": body, "headers": {"Content-Type": kind}} if body else {}
    return client.request("POST" if form else method, f"/v1/{path}", **content)


def calls(hint: str) -> list[tuple[str, str, str]]:
    """The calls that stand in a hint with all they need: method, path, and the JSON that follows."""
    found = []
    for match in CALL.finditer(hint):
        body = ""
        if hint[match.end() :].startswith("{"):
            body = hint[match.end() : match.end() + json.JSONDecoder().raw_decode(hint[match.end() :])[1]]
        if "{" not in match[2]:
            found.append((match[1], match[2].removeprefix("/v1/"), body))
    return found


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m["title"])
def test_mistake(client: httpx.Client, mistake: dict[str, Any]) -> None:
    response = send(client, mistake["call"], mistake["body"])
    problem = response.json()
    answer = response.status_code, problem["code"], problem["detail"], problem.get("hint", "")
    assert answer == (mistake["status"], mistake["code"], mistake["detail"], mistake["hint"])
    for call in mistake.get("before", ()):  # a hint about "the first time": the result is computed anew
        assert send(client, call["call"], call["body"]).status_code == 200, call
    new = ""
    for method, path, body in calls(mistake["hint"]):
        followed = send(client, f"{method} {path}", body)
        assert followed.status_code == 200, followed.text
        if path.startswith("ops/"):
            new = (followed.json().get("result") or {}).get("id") or new
    if "mend" in mistake:
        call, body = (mistake["mend"][part].replace("$", new) for part in ("call", "body"))
        mended = send(client, call, body)
        assert mended.status_code in (200, 201), mended.text


@pytest.mark.parametrize("mistake", [m for m in MISTAKES if TORCH[m["title"]]], ids=lambda m: m["title"])
def test_words_are_pytorchs(mistake: dict[str, Any]) -> None:
    assert (mistake["detail"] == TORCH[mistake["title"]]) is ("differs" not in mistake)


def test_the_tour_is_long_and_its_hints_are_followed() -> None:
    assert len({m["title"] for m in MISTAKES}) == len(MISTAKES) >= 120
    assert all(m["hint"] for m in MISTAKES)
    assert sum(bool(words) for words in TORCH.values()) >= DATA["words_of_torch"]
    assert sum(bool(calls(m["hint"])) for m in MISTAKES) >= DATA["hints_with_calls"]
