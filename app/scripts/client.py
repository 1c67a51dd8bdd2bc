"""A session's calls as a Python script: nothing but the standard library, against any server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

from app.scripts.history import opening, request_of

_HEAD = '''
import json
import os
import urllib.request

SERVER = os.environ.get("CURLGRAD_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("CURLGRAD_KEY")
HEADERS = {{"Content-Type": "application/json", **({{"Authorization": f"Bearer {{KEY}}"}} if KEY else {{}})}}


def call(method, path, body=None):
    """Send one request; what it answers. An answer that is no success ends the script with the server's words."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data, HEADERS, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{{method}} {{path}}: {{error.read().decode()}}") from None
    return json.loads(text) if text else None


session = call("POST", "/v1/sessions", {session})
HEADERS["Curlgrad-Session"] = session["id"]
print("session", session["id"])
'''


def start_of(history: Mapping[str, Any]) -> dict[str, Any]:
    """The body that makes a session like the one that was."""
    if history["whole"] and history["forked"] is not None:
        return {"fork": history["forked"]}
    return {name: history[name] for name in ("seed", "default_dtype", "device")}


def write(history: Mapping[str, Any], catalogue: Sequence[Mapping[str, Any]]) -> str:
    """The script."""
    first, *rest = opening(history)
    words = "\n".join(
        [f'"""{first}', "", *rest, "CURLGRAD_URL is the server, CURLGRAD_KEY the key if it asks for one."]
    )
    lines = [words + '\n"""', _HEAD.format(session=json.dumps(start_of(history)))]
    for told in history["calls"]:
        request = request_of(told["program"])
        body = "" if request.body is None else ", " + pformat(request.body, width=110, sort_dicts=False, compact=True)
        lines.append(f'print(call("{request.method}", {json.dumps(request.path)}{body}))')
    return "\n".join(lines) + "\n"
