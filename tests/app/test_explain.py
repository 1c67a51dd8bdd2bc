"""`?explain=true`: the notes of the answers, word for word for what a beginner meets first."""

from __future__ import annotations

import io
import json
import re
import string
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app import hints
from app.language import LANGUAGES
from tests.app.conftest import FakeService

ROOT = Path(__file__).parents[2]
KO = {"Accept-Language": "ko"}
TABLE = [[1, 2, 3], [4, 5, 6]]


def explained(http: httpx.Client, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    response = http.post(f"/v1/{path}?explain=true", json=body, headers=headers)
    assert response.status_code in (200, 201), response.text
    assert response.headers["content-language"] == ("ko" if headers else "en")
    return response.json()["notes"]


def told(notes: list[dict[str, Any]], about: str) -> list[str]:
    return [note["text"] for note in notes if note["about"] == about]


def test_an_operation_answers_with_its_notes(http: httpx.Client) -> None:
    assert explained(http, "ops/sum", {"input": TABLE, "dim": 1}) == [
        {"about": "dtype", "text": "input is int64, and the operation keeps that"},
        {
            "about": "dim",
            "text": "dim 1 runs along each row: the 3 cells of a row were joined into one, so [2, 3] became [2]",
        },
        {"about": "device", "text": "input is on cpu, and results stay where the operands are"},
        {"about": "requires_grad", "text": "false, since none of its operands requires grad (input)"},
    ]
    assert explained(http, "ops/sum", {"input": TABLE, "dim": 1}, KO) == [
        {"about": "dtype", "text": "input 텐서가 int64 타입이고, 이 연산은 dtype을 바꾸지 않습니다"},
        {
            "about": "dim",
            "text": "dim 1 방향은 각 행을 따라갑니다. 한 행의 칸 3개가 하나로 합쳐져 [2, 3] → [2]",
        },
        {"about": "device", "text": "input 텐서가 cpu에 있고, 결과는 피연산자가 있는 곳에 생깁니다"},
        {"about": "requires_grad", "text": "false입니다. 피연산자 가운데 requires_grad인 것이 없습니다(input)"},
    ]


def _case(case: dict[str, Any]) -> str:
    return f"{case['op']} {case['about']}"


@pytest.mark.parametrize("case", json.loads((ROOT / "tests/data/notes.json").read_text("utf-8")), ids=_case)
def test_notes_word_for_word(http: httpx.Client, case: dict[str, Any]) -> None:
    x = {"data": [[1.0, 2.0], [3.0, 4.0]], "name": "x", "requires_grad": True}
    assert http.post("/v1/tensors", json=x).status_code == 201
    assert http.post("/v1/ops/t", json={"input": "x", "out_name": "xt"}).status_code == 200
    path, body, about = f"ops/{case['op']}", case["body"], case["about"]
    assert told(explained(http, path, body), about) == [case["en"]]
    assert told(explained(http, path, body, KO), about) == [case["ko"]]


def test_each_of_several_results(http: httpx.Client) -> None:
    notes = explained(http, "ops/max", {"input": [[1.5, 2.5]], "dim": 1})
    assert [(n["of"], n["text"]) for n in notes if n["about"] == "dtype"] == [
        ("values", "input is float32, and the operation keeps that"),
        ("indices", "positions (indices) are int64, whatever the values are"),
    ]


def test_a_program_answers_with_notes_by_returned_name(http: httpx.Client) -> None:
    leaf = {"data": [1.0, 2.0], "requires_grad": True}
    program = {
        "inputs": {"w": leaf, "b": leaf},
        "steps": [
            {"op": "mul", "args": {"input": "w", "other": 2}, "out": "y"},
            {"op": "sum", "args": {"input": "y", "dim": 0}, "out": "loss"},
            {"op": "backward", "args": {"input": "loss"}},
        ],
        "return": ["loss", "w.grad", "b.grad"],
    }
    notes = explained(http, "programs", program)
    assert list(notes) == ["loss", "w.grad", "b.grad"]
    assert notes["b.grad"] == [
        {
            "about": "grad",
            "text": "null: the backward pass did not reach b, since what it began from does not depend on it",
        }
    ]
    assert told(notes["w.grad"], "grad") == [
        "the gradient of w is the sum over all backward passes since it was last cleared"
    ]
    (dim,) = [note for note in notes["loss"] if note["about"] == "dim"]
    assert dim == {
        "about": "dim",
        "text": "dim 0 is the only dimension: the 2 cells of the vector were joined into one, so [2] became []",
        "step": [1],
    }
    assert told(explained(http, "programs", program, KO)["b.grad"], "grad") == [
        "null입니다. 역전파를 시작한 텐서가 b 텐서에 의존하지 않아서 역전파가 닿지 않았습니다"
    ]


def test_a_tensor_says_why_it_has_no_gradient(http: httpx.Client) -> None:
    def said(headers: dict[str, str] | None = None) -> list[str]:
        response = http.get("/v1/tensors/x?explain=true", headers=headers)
        assert "etag" not in response.headers  # the notes change when the tensor does not
        return told(response.json()["notes"], "grad")

    http.post("/v1/tensors", json={"data": [1.0, 2.0], "name": "x"})
    assert said() == ["null: x does not require grad, so backward passes gather nothing for it"]
    http.patch("/v1/tensors/x", json={"requires_grad": True})
    assert said() == ["null: nothing that the session still has was computed from x, so no backward pass reaches it"]
    http.post("/v1/ops/mul", json={"input": "x", "other": "x", "out_name": "y"})
    http.post("/v1/ops/sum", json={"input": "y", "out_name": "s"})
    assert said() == [
        "null: s was computed from x, but there was no backward pass from it yet, or the gradient was cleared since"
    ]
    assert said(KO) == [
        (
            "null입니다. x 텐서로 s 텐서를 계산했지만, 거기서 아직 역전파(backward)를 하지 않았거나 "
            "그 뒤에 기울기를 지웠습니다"
        )
    ]
    assert http.post("/v1/tensors/s/backward").status_code == 200
    assert said() == ["the gradient of x is the sum over all backward passes since it was last cleared"]


def test_uploads_are_explained(http: httpx.Client) -> None:
    assert told(explained(http, "tensors", {"data": [1, 2]}), "dtype") == [
        (
            "the numbers of data are written without a point, so they are whole numbers, int64 "
            "(1.0 would be floating-point)"
        )
    ]
    file = io.BytesIO()
    np.save(file, np.zeros(2))
    answer = http.post(
        "/v1/tensors?explain=true", content=file.getvalue(), headers={"Content-Type": "application/x-npy"}
    )
    assert told(answer.json()["notes"], "dtype") == ["the uploaded data say their dtype, float64, and keep it"]


def test_without_explain_there_are_no_notes(http: httpx.Client) -> None:
    for path, body in (("ops/add", {"input": 1, "other": 2}), ("programs", {"steps": []}), ("tensors", {"data": 1})):
        response = http.post(f"/v1/{path}?explain=false", json=body, headers=KO)
        assert "notes" not in response.json()
        assert "content-language" not in response.headers


@pytest.mark.parametrize(
    "method, path, words",
    [
        ("POST", "/v1/ops/ones?explain=true&dry_run=true", "a dry run has no results to explain"),
        ("GET", "/v1/tensors/x?explain=true&as=text", "?explain=true goes with JSON alone"),
        ("GET", "/v1/tensors?explain=true", "unknown query parameter 'explain'"),
    ],
)
def test_explain_is_never_ignored(http: httpx.Client, method: str, path: str, words: str) -> None:
    http.post("/v1/tensors", json={"data": 1, "name": "x"})
    response = http.request(method, path, json={"size": [1]} if method == "POST" else None)
    assert response.status_code == 422
    assert words in response.json()["detail"]


def test_the_flag_reaches_the_engine_only_when_it_is_asked_for(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {"r": None}, "notes": {"r": []}}
    client.post("/v1/ops/add?explain=true", json={})
    assert fake.last[-1] == "explain"
    client.post("/v1/ops/add", json={})
    assert fake.last[-1] is False


# ---------------------------------------------------------------- sentences and notes


def notes_in_source() -> set[str]:
    """The keys of the notes that the engine makes; where a key ends in a word for the direction, its beginning."""
    source = "".join((ROOT / f"engine/{name}.py").read_text() for name in ("reasons", "explain"))
    return set(re.findall(r'f?"((?:dtype|shape|dim|device|memory|requires_grad|grad)\.[a-z0-9-]+)', source))


def test_every_note_has_a_sentence_and_every_sentence_a_note() -> None:
    beginnings = {key for key in notes_in_source() if key.endswith("-")}
    lines = {f"{key}{line}" for key in beginnings for line in ("row", "column", "vector", "other")}
    assert notes_in_source() - beginnings | lines == set(LANGUAGES["en"].notes)


@pytest.mark.parametrize("tag", LANGUAGES)
def test_facts_are_filled_in(tag: str) -> None:
    words = {"high_word": "float", "low_word": "int"}
    for key, template in LANGUAGES[tag].notes.items():
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        lists = {name: [1, 2] for name in names & {"dims", "sizes", "parts"}}
        facts = {name: f"<{name}>" for name in names} | lists | {n: w for n, w in words.items() if n in names}
        made = hints.note({"key": key, "facts": facts}, LANGUAGES[tag])
        assert made["about"] == key.partition(".")[0]
        assert "{" not in made["text"]
        assert all(f"<{name}>" in made["text"] for name in names - lists.keys() - words.keys())


# ---------------------------------------------------------------- docs/explain.md


def examples() -> list[tuple[str, str, str, str]]:
    """(method, path, body, answer) of each example of docs/explain.md."""
    page = (ROOT / "docs/explain.md").read_text()
    shell = re.findall(r"```sh\ncurl (.*?)\n```\n+```json\n(.*?)\n```", page, re.DOTALL)
    found = []
    for command, answer in shell:
        url = re.search(r"http://127\.0\.0\.1:8000(\S+?)'", command)
        body = re.search(r"-d '(.*?)'", command, re.DOTALL)
        language = re.search(r"Accept-Language: (\w+)", command)
        assert url
        found.append((language[1] if language else "en", url[1], body[1] if body else "", answer))
    return found


def test_the_examples_of_the_page_are_real(http: httpx.Client) -> None:
    found = examples()
    assert len(found) >= 3
    for language, path, body, answer in found:
        method = "POST" if body else "GET"
        response = http.request(method, path, content=body, headers={"Accept-Language": language})
        assert response.status_code in (200, 201), response.text
        assert response.json()["notes"] == json.loads(answer)["notes"], path
