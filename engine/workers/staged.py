"""Changes that are done, and wait with their calls until they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.durability.store import Change, Store
from engine.errors import EngineError, OutOfMemory

Done = Callable[[EngineError | None], None]  # is told why a change could not be written, or None


class Staged:
    """The changes of a turn of the worker's loop, which are written in one go. `as_error`: what a caller is told of an
    exception."""

    def __init__(self, as_error: Callable[[Exception, str], EngineError]) -> None:
        self._as_error = as_error
        self._waiting: list[tuple[Sequence[Change], Done]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, changes: Sequence[Change], done: Done) -> None:
        """Changes to be written, all or none of them; `done` is called when they are, or cannot be."""
        self._waiting.append((changes, done))

    def flush(self, store: Store | None) -> bool:
        """Writes what waits. False when nothing waited."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return False
        assert store is not None
        failures: list[EngineError | None] = [None] * len(waiting)
        try:
            store.write([change for changes, _ in waiting for change in changes])
        except Exception as problem:  # noqa: BLE001 - whatever it is, the others go on
            failures = [self._as_error(problem, "write")] * len(waiting)
            if isinstance(problem, OutOfMemory) and len(waiting) > 1:
                # A big one may have kept small ones out.
                failures = [self._write_alone(store, changes) for changes, _ in waiting]
        for (_, done), failure in zip(waiting, failures, strict=True):
            done(failure)
        return True

    def _write_alone(self, store: Store, changes: Sequence[Change]) -> EngineError | None:
        try:
            store.write(changes)
        except Exception as problem:  # noqa: BLE001 - as in `flush`
            return self._as_error(problem, "write")
        return None
