"""What a session did, as a script that runs: Service.session_history told in another language.

history.py   what the recorded programs are: calls of HTTP, values as JSON
pytorch.py   the same computation in PyTorch, without a server
client.py    the same calls from Python, with nothing but its standard library
shell.py     the same calls with curl
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.scripts import client, pytorch, shell

Writer = Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], str]

# By `?language=`, the first when none is asked for.
WRITERS: Mapping[str, Writer] = {"pytorch": pytorch.write, "python": client.write, "curl": shell.write}


def weight(history: Mapping[str, Any]) -> int:
    """About how many bytes of script there are to write."""
    return 4096 * len(history["calls"])
