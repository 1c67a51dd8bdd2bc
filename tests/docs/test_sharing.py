"""docs/sharing.md, followed to the letter: each answer is as the page shows it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from string import Template
from typing import Any

import httpx

from app import keys
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import served

PAGE = Path(__file__).parents[2] / "docs" / "sharing.md"


def curl(client: httpx.Client, line: str, known: dict[str, str]) -> httpx.Response:
    """What a line of the page asks. In single quotes the shell replaces nothing, and the page has no $ there."""
    words = shlex.split(Template(line).substitute(known))
    assert words.pop(0) == "curl"
    url, method, headers, body = None, None, {}, None
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-X":
            method = words.pop(0)
        elif word == "-d":
            body = words.pop(0)
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        else:
            assert url is None
            url = word.removeprefix("http://127.0.0.1:8000")
    assert url is not None
    return client.request(method or ("GET" if body is None else "POST"), url, headers=headers, content=body)


def test_the_walk_through(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    (teacher, student) = (text for _, text in keys.create(path, ["teacher", "student"], ["read", "write"]))
    known = {"TEACHER": teacher, "STUDENT": student}
    shown = 0
    with served(create_app(Settings(workers="inline", keys_file=path, max_rate=0, data_dir=tmp_path / "data"))) as client:
        answer: Any = None
        for kind, text in re.findall(r"```(sh|json)\n(.*?)\n```", PAGE.read_text("utf-8"), re.DOTALL):
            if kind == "sh":
                for line in text.splitlines():
                    response = curl(client, line, known)
                    answer = response.json()
                    assert response.status_code < 500, answer
                    known["PUBLIC"] = answer.get("public_id") or known.get("PUBLIC", "")
                continue
            for name, value in json.loads(text).items():
                assert re.fullmatch("[0-9a-f]+".join(map(re.escape, str(value).split("…"))), str(answer[name])), answer
            shown += 1
    assert shown == 6
