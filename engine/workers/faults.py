"""What a worker answers when something is raised."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable

from engine.backend import Backend
from engine.errors import Bug, EngineError, Hint, OutOfMemory

log = logging.getLogger("curlgrad.worker")


def as_error(problem: Exception, doing: str, backends: Iterable[Backend]) -> EngineError:
    """The error to tell: what a device says it is, what it is already, or a bug, whose traceback goes to the log."""
    error = next(filter(None, (one.fault(problem) for one in backends)), None)
    if error is None and isinstance(problem, EngineError):
        error = problem
    elif error is None and isinstance(problem, MemoryError):
        error = OutOfMemory(f"the worker ran out of memory: {str(problem) or 'nothing more is known'}")
    elif error is None:
        reference = secrets.token_hex(4)
        log.error("a bug in %s, reference %s", doing, reference, exc_info=problem)
        error = Bug(
            f"a bug of the server ({type(problem).__name__}); its log has the traceback under {reference}",
            hint=Hint("report-bug", reference=reference),
            reference=reference,
        )
    # A traceback holds the frames it went through, and they the tensors of the failed program, in a cycle.
    problem.__traceback__ = problem.__context__ = problem.__cause__ = None
    return error
