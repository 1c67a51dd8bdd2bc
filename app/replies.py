"""What a program, or one operation, is answered: of the engine's reply, whenever it comes."""

from __future__ import annotations

from typing import Any

from app import hints
from app.language import Language
from app.wire import json_write


def of_program(reply: dict[str, Any], integers: json_write.Integers, language: Language) -> dict[str, Any]:
    """The answer of POST /v1/programs."""
    reply["results"] = {name: json_write.result(value, integers) for name, value in reply["results"].items()}
    if "notes" in reply:
        reply["notes"] = {name: [hints.note(n, language) for n in notes] for name, notes in reply["notes"].items()}
    return reply


def of_op(
    op: str, reply: dict[str, Any], integers: json_write.Integers, language: Language, *, dry_run: bool = False
) -> dict[str, Any]:
    """The answer of POST /v1/ops/{op}."""
    answer = {"op": op, "result": json_write.result(reply["results"]["r"], integers)}
    if dry_run:
        answer["peak_bytes"] = reply["peak_bytes"]
    if "notes" in reply:  # without the step: to the caller there is none
        notes = [{k: v for k, v in note.items() if k != "step"} for note in reply["notes"]["r"]]
        answer["notes"] = [hints.note(note, language) for note in notes]
    return answer
