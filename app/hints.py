"""What to do next, and why a result is as it is: the engine's hints and notes (a key, facts, calls) as sentences.

The sentences stand in `app/language/`, in every language; here they are chosen and filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from app.language import LANGUAGES, Language
from engine.errors import Call, Hint

ENGLISH = LANGUAGES["en"]
SENTENCES = ENGLISH.hints
MAX_ARGUMENT = 160  # characters of a call's arguments; longer ones are data that the caller knows


def sentence(hint: Hint | None, language: Language = ENGLISH) -> str | None:
    """The hint as a sentence; None without a hint."""
    if hint is None:
        return None
    calls = [spoken(call) for call in hint.calls]
    template = language.hints.get(hint.key)
    if template is None:
        return " or ".join(calls) or None
    with_call, _, without = template.partition(" :: ")
    chosen = with_call if calls or "{call" not in with_call else without
    if not chosen:
        return None
    facts = {
        name: _fact(language.words.get(value, value) if name == "whose" else value)
        for name, value in hint.facts.items()
    }
    return chosen.format_map({**facts, "call": calls[0] if calls else "", "calls": " or ".join(calls)})


def note(data: Mapping[str, Any], language: Language = ENGLISH) -> dict[str, Any]:
    """A note of the engine (engine.explain) as the answer has it: what it is about, and the sentence."""
    facts = {}
    for name, value in data["facts"].items():
        if name.endswith("_word"):
            facts[name] = language.words[value]
        elif name in _BETWEEN:
            facts[name] = _BETWEEN[name].join(map(str, value))
        else:
            facts[name] = _fact(value)
    key = data["key"]
    told = {"about": key.partition(".")[0], "text": language.notes[key].format_map(facts)}
    return {**told, **{name: data[name] for name in ("of", "step") if name in data}}


# Numbers that are read one by one, and no shape: what stands between them.
_BETWEEN = {"dims": ", ", "sizes": ", ", "parts": " + "}


def spoken(call: Call) -> str:
    """The call as it is sent: `POST /v1/ops/to {"input": "x1", "dtype": "float32"}`."""
    arguments = ", ".join(f'"{name}": {_json(value)}' for name, value in call.args.items())
    return f"POST /v1/ops/{call.op} {{{arguments}}}"


def _json(value: Any) -> str:
    """One argument as JSON; what is too long to repeat, or was uploaded, is three dots."""
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f'"{key}": {_json(item)}' for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(_json, value)) + "]" if len(value) <= MAX_ARGUMENT else "..."
    elif value is None or isinstance(value, bool | int | float | str):
        text = orjson.dumps(value).decode()
    else:
        text = "..."
    return text if len(text) <= MAX_ARGUMENT else "..."


def _fact(value: Any) -> str:
    """A fact within a sentence: names after each other, numbers and shapes as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return _json(value)
