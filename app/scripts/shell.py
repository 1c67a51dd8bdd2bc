"""A session's calls as a shell script with curl."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from app.scripts.client import start_of
from app.scripts.history import opening, request_of

_LONGEST = 100_000  # bytes of a body that is an argument of curl: Linux takes 131,072 in one

_HEAD = """
set -eu
URL="${{CURLGRAD_URL:-http://127.0.0.1:8000}}"

call() {{  # method, path, body
  if [ -n "${{CURLGRAD_KEY:-}}" ]; then set -- "$@" -H "Authorization: Bearer $CURLGRAD_KEY"; fi
  method=$1 path=$2; shift 2
  curl --fail-with-body --silent --show-error --globoff -X "$method" "$URL$path" -H "Curlgrad-Session: $SESSION" "$@"
  echo
}}

SESSION=default
SESSION=$(call POST /v1/sessions -d {session} | sed 's/.*"id":"\\([^"]*\\)".*/\\1/')
echo "session $SESSION"
"""


def write(history: Mapping[str, Any], catalogue: Sequence[Mapping[str, Any]]) -> str:
    """The script."""
    lines = ["#!/bin/sh", *(f"# {line}" for line in opening(history))]
    lines.append("# CURLGRAD_URL is the server, CURLGRAD_KEY the key if it asks for one.")
    lines.append(_HEAD.format(session=shlex.quote(_json(start_of(history)))))
    for told in history["calls"]:
        request = request_of(told["program"])
        call = f"call {request.method} {shlex.quote(request.path)}"
        if request.body is None:
            lines.append(call)
            continue
        body = shlex.quote(_json(request.body))
        long = len(body.encode()) > _LONGEST
        lines.append(f"printf %s {body} | {call} --data-binary @-" if long else f"{call} -d {body}")
    return "\n".join(lines) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
