"""The languages that hints and notes are spoken in. `detail` of a problem is PyTorch's and is never translated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Scope

from app.language import en, ko

DEFAULT = "en"
MAX_RANGES = 100  # of a header that says more, the rest is not read


@dataclass(frozen=True)
class Language:
    """Sentences by key. `words` are what kinds of numbers are called."""

    tag: str
    hints: Mapping[str, str]
    notes: Mapping[str, str]
    words: Mapping[str, str]


LANGUAGES: Mapping[str, Language] = {
    tag: Language(tag, table.HINTS, table.NOTES, table.WORDS) for tag, table in (("en", en), ("ko", ko))
}


def chosen(accept: str | None) -> Language:
    """The language that an Accept-Language header prefers among ours (RFC 9110, 12.5.4); English where it has no say.

    `ko-KR` asks for `ko`. A range that cannot be read counts for nothing.
    """
    if not accept:
        return LANGUAGES[DEFAULT]
    quality: dict[str, float] = {}
    for part in accept.split(",")[:MAX_RANGES]:
        words, _, parameters = part.strip().lower().partition(";")
        tag = words.strip().partition("-")[0]
        q = _quality(parameters)
        if q is not None and tag:
            quality[tag] = max(q, quality.get(tag, 0.0))
    others = quality.get("*", 0.0)
    best = max(LANGUAGES, key=lambda tag: (quality.get(tag, others), tag == DEFAULT))
    return LANGUAGES[best if quality.get(best, others) > 0 else DEFAULT]


def _quality(parameters: str) -> float | None:
    """`q=0.5` as a number from 0 to 1; 1 where nothing is said, None where it makes no sense."""
    text = parameters.strip()
    if not text:
        return 1.0
    name, _, value = text.partition("=")
    value = value.strip()
    if name.strip() != "q" or not value.replace(".", "", 1).isdecimal() or not value.isascii():
        return None
    q = float(value)
    return q if q <= 1 else None


def of_scope(scope: Scope) -> Language:
    """The language that a request asks for."""
    said = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept-language"]
    return chosen(", ".join(said))
