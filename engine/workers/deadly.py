"""Programs that ended their worker: one that did so too often is not run again."""

from __future__ import annotations

import hashlib

from engine.errors import Hint, Invalid
from engine.workers.messages import Codec, Message

DEADLY = 2  # how often a program may end its worker before it is refused
_REMEMBERED = 1000  # programs


class Deadly:
    """How often programs ended their worker, by fingerprint."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    @property
    def any(self) -> bool:
        """Whether there are such programs."""
        return bool(self._times)

    @property
    def known(self) -> list[str]:
        """The fingerprints of those that did."""
        return list(self._times)

    def admit(self, message: Message) -> str | None:
        """The program's fingerprint, where any are remembered. Raises Invalid for one that did it too often."""
        if not self._times:
            return None
        known_as = fingerprint(message)
        if self._times.get(known_as, 0) >= DEADLY:
            raise Invalid(
                f"this program has ended its worker {DEADLY} times, and is not run again",
                code="killed-worker",
                hint=Hint("killed-worker"),
            )
        return known_as

    def killed(self, message: Message) -> None:
        """The program was running when its worker ended."""
        known_as = fingerprint(message)
        self._times[known_as] = self._times.pop(known_as, 0) + 1
        while len(self._times) > _REMEMBERED:
            del self._times[next(iter(self._times))]

    def survived(self, known_as: str | None) -> None:
        """The program has come to its end: it is forgiven."""
        if known_as is not None:
            self._times.pop(known_as, None)


def fingerprint(message: Message) -> str:
    """What a program, or a query, is known by: its contents, arrays included."""
    told = {name: message.get(name) for name in ("do", "program", "q")}
    body, blobs = Codec().pack(told)
    found = hashlib.blake2b(body, digest_size=16)
    for blob in blobs:
        found.update(blob.data)
    return found.hexdigest()
