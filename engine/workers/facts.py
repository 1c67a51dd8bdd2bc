"""What a worker tells of its devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.backend import Backend
from engine.tensor import ServerLedger


def devices(backends: Sequence[Backend], server: ServerLedger) -> list[dict[str, Any]]:
    """Each device with what it is and the bytes of its memory: all, free, used by arrays, held, allowed."""
    found = []
    for one in backends:
        memory = one.memory() or _counted(one.name, server)
        found.append({"name": one.name, "model": one.model, "simulated": one.simulated, "memory": memory})
    return found


def _counted(device: str, server: ServerLedger) -> dict[str, int]:
    """What is known of a device without a memory of its own: what its sessions hold."""
    used, limit = server.held_on(device), server.limit
    return {"total": limit, "free": max(0, limit - server.held), "used": used, "held": used, "limit": limit}
