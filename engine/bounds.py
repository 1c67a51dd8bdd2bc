"""What a session may hold and answer, checked before a program's changes are kept; and what it holds, told.

Memory itself is asked for before it is allocated (engine.context). Here is what only the end of a program shows: how
many tensors and how much tape would stay, and how much an answer would spell out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from engine.context import Context
from engine.errors import Hint, Invalid, LimitExceeded, OutOfMemory, OutOfTime
from engine.holders import Holdings, total
from engine.limits import Limits
from engine.tensor import Tensor


class Bounded(Protocol):
    """What is asked of a session. `count_tape_from`: held bytes from which the tape's have to be counted."""

    ctx: Context
    limits: Limits
    tensors: dict[str, Tensor]
    names: dict[str, Tensor]
    count_tape_from: int

    def bytes_held(self) -> dict[str, int]: ...


def check_answer(limits: Limits, numel: int) -> None:
    """Refuses to spell out more numbers than an answer may have."""
    if numel > limits.max_values:
        raise LimitExceeded(
            f"this answer would spell out {numel} numbers, more than the limit of {limits.max_values}",
            code="answer-too-large",
            hint=Hint("answer-too-large"),
            param="values",
        )


def check_holdings(session: Bounded, *, added: bool, recorded: bool) -> None:
    """Refuses a program after which a session would hold more tensors, or more tape, than it may.

    `added`, `recorded`: whether it gave ids, and whether it wrote on the tape; what frees memory is never refused.
    """
    limits = session.limits
    named = len(session.names)
    unnamed = len(session.tensors) - named
    if added and unnamed > limits.max_unnamed:
        raise _too_many(unnamed, limits.max_unnamed, "without a name", Hint("delete-unnamed"), "too-many-unnamed")
    if added and named > limits.max_names:
        raise _too_many(named, limits.max_names, "with a name", Hint("free-memory", whose="session"), "too-many-names")
    if not recorded or session.ctx.ledger.held <= session.count_tape_from:
        return
    holdings = Holdings(session.tensors.values())
    found = total(holdings.bytes())
    if found["tape"] > limits.tape_bytes:
        raise OutOfMemory(
            f"the tape would hold {found['tape']} bytes that no tensor or gradient does, more than the "
            f"{limits.tape_bytes} that it may in this session",
            code="tape-memory",
            hint=Hint("free-tape", first=holdings.most_taped() or "{id}"),
            asked=found["tape"],
            limit=limits.tape_bytes,
            held=found["tape"],
            free=0,
        )
    # Up to here the tape cannot be over its limit, but for a little, so that it is not counted after each program.
    session.count_tape_from = found["tensors"] + max(limits.tape_bytes, found["tape"] + (limits.tape_bytes >> 6))


def _too_many(held: int, limit: int, which: str, hint: Hint, code: str) -> OutOfMemory:
    return OutOfMemory(
        f"the session would hold {held} tensors {which}, more than the {limit} that it may",
        code=code,
        hint=hint,
        asked=1,
        limit=limit,
        held=held - 1,
        free=max(limit - held, 0),
    )


def step_overdue(limit: float) -> OutOfTime:
    """The error of a program whose step outlived the program's time, and its worker."""
    return OutOfTime(
        f"one step ran far past the program's limit of {limit:g} s and could not be interrupted, so its worker was "
        "ended and started anew; the session is as it was before",
        code="step-overdue",
        hint=Hint("step-overdue", limit=f"{limit:g}"),
        limit=limit,
    )


# ---------------------------------------------------------------- what is held


def ledger_page(session: Bounded, limit: int, cursor: str | None) -> dict[str, Any]:
    """GET /sessions/{id}/memory: the biggest storages after `cursor`, and who keeps each alive."""
    after = None
    if cursor is not None:
        size, _, uid = cursor.partition(".")
        if not (_is_number(size) and _is_number(uid)):
            raise Invalid(
                f"{cursor[:100]!r} is no cursor: take the one that the page before gave",
                code="bad-cursor",
                param="cursor",
            )
        after = (int(size), int(uid))
    storages, following = Holdings(session.tensors.values()).page(limit, after)
    limits = session.limits
    return {
        "bytes": session.bytes_held(),
        "limits": {"total": limits.session_bytes, "tape": limits.tape_bytes, "unnamed": limits.max_unnamed},
        "unnamed": len(session.tensors) - len(session.names),
        "storages": storages,
        "cursor": following,
    }


def bytes_by_device(session: Bounded) -> dict[str, dict[str, int]]:
    """Bytes by device and what holds them: tensors, gradients, tape, and what a running program can undo."""
    ctx = session.ctx
    if len(ctx.devices) == 1:
        held: Mapping[str, int] = session.bytes_held()
        found = {ctx.devices[0]: {kind: held[kind] for kind in ("tensors", "grads", "tape")}}
    else:
        found = Holdings(session.tensors.values()).bytes()
    for storage, ranges in ctx.undo.storages.values():
        on = found.setdefault(storage.backend.name, {"tensors": 0, "grads": 0, "tape": 0})
        on["undo"] = on.get("undo", 0) + sum(copy.nbytes for *_, copy in ranges)
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
