"""Which form an answer takes: `?as=`, else the `Accept` header, by RFC 9110."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from app.wire import csv, json_write, npy, raw, safetensors
from engine.errors import Hint, NotAcceptable

JSON = "json"
TEXT = "text"
NPY = "npy"
SAFETENSORS = "safetensors"
RAW = "raw"
CSV = "csv"
DOT = "dot"
EVENTS = "events"
SVG = "svg"
PNG = "png"

MEDIA_TYPES: Mapping[str, str] = {
    JSON: json_write.MEDIA_TYPE,
    TEXT: "text/plain",
    NPY: npy.MEDIA_TYPE,
    SAFETENSORS: safetensors.MEDIA_TYPE,
    RAW: raw.MEDIA_TYPE,
    CSV: csv.MEDIA_TYPE,
    DOT: "text/vnd.graphviz",
    EVENTS: "text/event-stream",
    SVG: "image/svg+xml",
    PNG: "image/png",
}
BINARY = frozenset((NPY, SAFETENSORS, RAW))
TENSOR_FORMS = (JSON, TEXT, NPY, SAFETENSORS, RAW, CSV)


def essence(content_type: str | None) -> str:
    """The media type alone, in lower case: `text/plain` of `Text/Plain; charset=utf-8`; empty without one."""
    return (content_type or "").partition(";")[0].strip().lower()


@lru_cache(maxsize=256)
def choose(accept: str | None, wanted: str | None, offered: Sequence[str]) -> str:
    """The form to answer in, one of `offered`, the first being the server's choice.

    Raises NotAcceptable, naming what there is, where neither `wanted` (from `?as=`) nor `accept` can be met.
    """
    if wanted is not None:
        if wanted in offered:
            return wanted
        raise _none_of(f"there is no form {wanted!r} of this", offered)
    if accept is None or accept == "*/*" or not accept.strip():
        return offered[0]
    ranges = _parse(accept)
    best, quality = None, 0.0
    for form in offered:
        given = _quality(MEDIA_TYPES[form], ranges)
        if given > quality:
            best, quality = form, given
    if best is None:
        raise _none_of("nothing of what the Accept header asks for is offered here", offered)
    return best


def _none_of(what: str, offered: Sequence[str]) -> NotAcceptable:
    forms = [f"{form} ({MEDIA_TYPES[form]})" for form in offered]
    return NotAcceptable(f"{what}: there is {', '.join(forms)}", hint=Hint("accept-how", forms=list(offered)))


def _parse(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for part in accept.split(","):
        name, *parameters = part.split(";")
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = min(1.0, max(0.0, float(value)))
                except ValueError:
                    quality = 0.0
        ranges.append((name.strip().lower(), quality))
    return ranges


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that the type falls in; 0 where it is in none."""
    by_range = dict(ranges)
    for candidate in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if candidate in by_range:
            return by_range[candidate]
    return 0.0
