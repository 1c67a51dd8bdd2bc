"""application/x-www-form-urlencoded: what `curl -d` sends when nothing else is said.

A body that starts with `{` is JSON under the wrong name. Any other is fields, `size=[2,3]&out_name=x`, each read as
JSON if it is JSON and else as a string, so that nothing needs quotes in any shell.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from app.wire import json_read
from engine.errors import Hint, LimitExceeded, Malformed

MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 1000


def read(body: bytes) -> json_read.Document:
    """The body's fields as one object. Raises Malformed where they are no fields, or a field is given twice."""
    if body.lstrip().startswith(b"{"):
        return json_read.read(body)
    document = json_read.Document({})
    pairs = body.split(b"&") if body else []
    if len(pairs) > MAX_FIELDS:
        raise LimitExceeded(f"the form has {len(pairs)} fields; at most {MAX_FIELDS} are read")
    for pair in pairs:
        if not pair:
            continue
        name_part, equals, value_part = pair.partition(b"=")
        if not equals:
            raise Malformed(
                f"the body is neither a JSON object nor name=value fields: {_shown(pair)}",
                code="not-json",
                hint=Hint("form-how"),
            )
        name = _text(name_part)
        if name in document.bare:
            raise Malformed(f"the field {name!r} is given twice", code="duplicate-key", hint=Hint("field-once"))
        document.bare[name] = _value(name, _decoded(value_part), document)
    return document


def _value(name: str, text: bytes, document: json_read.Document) -> Any:
    stripped = text.strip()
    try:
        orjson.loads(stripped)
    except orjson.JSONDecodeError:
        if stripped[:1] not in (b"[", b"{", b'"'):
            return _utf8(text)
        try:
            json_read.read(stripped)
        except Malformed as error:
            raise Malformed(f"field {name!r}: {error.detail}", code=error.code, hint=error.hint) from None
    inner = json_read.read(stripped)
    document.arrays.join(inner.arrays)
    return inner.bare


def _decoded(part: bytes) -> bytes:
    return unquote_to_bytes(part.replace(b"+", b" "))


def _text(part: bytes) -> str:
    return _utf8(_decoded(part))


def _utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise Malformed("the form is not UTF-8", code="not-json") from None


def _shown(part: bytes) -> str:
    text = part.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
