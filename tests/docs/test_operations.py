"""docs/operations.md: options, metrics, limits and the example line are those that there are."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.commands import keys_parser
from app.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
OPTIONS = {"--" + option.name.replace("_", "-") for option in dataclasses.fields(Settings)}


def test_every_option_it_names_is_one() -> None:
    create = next(action for action in keys_parser()._actions if action.choices).choices
    assert create is not None
    of_keys = {flag for parser in dict(create).values() for action in parser._actions for flag in action.option_strings}
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert named - OPTIONS - of_keys - {"--help"} == set()


def test_every_limit_is_in_it() -> None:
    limits = {option for option in OPTIONS if re.search("max|bytes|history", option)}
    assert {option for option in limits if f"`{option}`" not in TEXT} == set()


@pytest.mark.parametrize("line", re.findall(r"^python -m app keys (.*?)(?: >.*)?$", TEXT, re.MULTILINE))
def test_its_commands_are_understood(line: str) -> None:
    keys_parser().parse_args(line.split())


def test_its_metrics_are_those_of_the_dashboard_and_more() -> None:
    named = set(re.findall(r"`(curlgrad_\w+)`", TEXT))
    dashboard = (ROOT / "examples/grafana/curlgrad.json").read_text(encoding="utf-8")
    shown = {re.sub("_bucket$", "", name) for name in re.findall(r"curlgrad_\w+", dashboard)}
    assert shown <= named
    source = (ROOT / "app/metrics.py").read_text(encoding="utf-8")
    defined = set(re.findall(r'"(curlgrad_\w+)"', source))
    assert {re.sub("_total$", "", name) for name in named} | {"curlgrad_info"} == defined


def test_the_example_of_a_line_has_the_fields_of_one() -> None:
    (text,) = re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)
    line: dict[str, Any] = json.loads(text)
    assert list(line) == [
        "time", "level", "logger", "message", "request_id", "method", "route", "status", "ms", "session", "key",
    ]  # fmt: skip
    assert list(line["ms"]) == ["total", "queue", "run", "encode"]
