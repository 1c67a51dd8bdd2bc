"""Who hangs up cancels what they asked for: nobody will read the answer, and others wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from engine.errors import Conflict

LOOK_AFTER_S = 0.1  # what takes less is not worth a look

T = TypeVar("T")


def gone() -> Conflict:
    """What becomes of a call whose client has hung up: nobody reads it."""
    return Conflict("the client has hung up; the session is as it was before", code="cancelled")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Cancels it when the client hangs up, and raises Conflict, which nobody reads."""
    watch = _Watch(request)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        watch.caller.uncancel()
        raise gone() from None
    finally:
        watch.stop()


class _Watch:
    """Looks whether the client is there; for most calls that is a timer that is never due."""

    __slots__ = ("_request", "_task", "_timer", "caller", "gone")

    def __init__(self, request: Request) -> None:
        caller = asyncio.current_task()
        assert caller is not None
        self.caller, self.gone = caller, False
        self._request = request
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            await self._request.body()  # what is not read yet comes before the end
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
        except ClientDisconnect:
            pass
        self.gone = True
        self.caller.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
