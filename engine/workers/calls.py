"""What a worker may be asked, and a call that waits for its turn."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import UnionType
from typing import Any

from engine.workers.messages import Message, Peer
from engine.workers.seats import Seat

# The fields of each message, beside "do" and "id".
FIELDS: Mapping[str, Mapping[str, type | UnionType]] = {
    "open": {"session": str, "owner": str, "name": str | None, "device": str, "default_dtype": str},
    "run": {"session": str, "program": dict, "values": str, "dry_run": bool, "explain": bool},
    "query": {"session": str, "q": dict, "values": str},
    "rename": {"session": str, "name": str | None},
    "lease": {"session": str, "lease_s": float | int | None},
    "outcome": {"session": str, "call": str, "values": str},
    "publish": {"session": str, "public": str | None},
    "fork": {"session": str, "into": str, "owner": str, "name": str | None, "device": str, "default_dtype": str},
    "close": {"session": str},
    "cancel": {"target": int},
    "info": {"sessions": list},
    "leave": {"session": str},
    "job": {"session": str, "job": str, "program": dict, "values": str, "explain": bool, "about": dict},
    "look": {"owner": str, "job": str},
    "jobs": {"owner": str},
    "drop": {"owner": str, "job": str},
    "devices": {},
}


class Call:
    """A call that stands in its session's line."""

    __slots__ = ("arrived", "by_itself", "id", "message", "payer", "peer", "ran", "seat", "sending", "steps", "word")

    def __init__(self, peer: Peer, message: Message, seat: Seat, arrived: float) -> None:
        self.peer, self.message, self.seat = peer, message, seat
        self.id: int = message["id"]
        self.word: str = message["do"]
        self.payer: str = message.get("by") or seat.owner  # whose queue it stands in: others may read what is public
        self.arrived = arrived  # when the front sent it
        self.ran = 0.0
        self.sending = False  # whether it is done, and its answer is being copied, or written
        self.by_itself = False  # whether it is not to be written together with others of its session
        self.steps: Generator[dict[str, Any] | None, None, dict[str, Any]] | None = None  # a program that has begun
