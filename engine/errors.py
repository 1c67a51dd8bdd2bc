"""Everything the engine refuses, as one tree.

    EngineError
    ├── Malformed              400  bytes that are not what they claim to be
    ├── NotFound               404  NoSuchTensor, NoSuchOp, NoSuchSession, NoSuchJob, NoGrad
    ├── NotAcceptable          406  a form that cannot hold this tensor
    ├── Conflict               409  TapeFreed, SavedChanged, LeafInPlace, NameTaken
    ├── Gone                   410  a session that was yours
    ├── PreconditionFailed     412  If-Match, expect
    ├── TooLarge               413  a body over the limit
    ├── Unsupported            415  a form that is not understood
    ├── Invalid                422  wrong parameter, shape, dtype, device or limit
    │   ├── UnknownParameter, MissingParameter, WrongType, LimitExceeded
    │   ├── ShapeMismatch, DtypeMismatch, DeviceMismatch, NoSuchDevice
    │   └── DimOutOfRange, IndexOutOfRange, NotScalar, NoGradient, GradcheckFailed
    ├── Unavailable            503  a worker that restarts or drains; DeviceLost: a GPU that can compute no more
    │   └── QueueFull          429  too many of the caller's own calls wait already
    ├── OutOfTime              504  a program that ran past its time limit, or would
    ├── OutOfMemory            507  over a memory limit, before anything was allocated
    └── Bug                    500  ours to mend

An error has a code, a detail (PyTorch's words where PyTorch has the same error), facts, and a `Hint`: data, not prose.
The app turns hints into sentences and errors into statuses; the statuses above are for orientation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Param:
    """In a hint: whatever the caller gave for this parameter of the failing operation."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """In a hint: a call of an operation that mends the error."""

    op: str
    args: Mapping[str, Any]


class Hint:
    """What to do next: `key` chooses the sentence, `facts` fill it, `calls` are the calls that mend the error."""

    __slots__ = ("calls", "facts", "key")

    def __init__(self, key: str, *calls: Call, **facts: Any) -> None:
        self.key, self.calls, self.facts = key, calls, facts

    def fill(self, references: Mapping[str, Any]) -> Hint:
        """The hint with every `Param` replaced by what the caller gave; a call that cannot be completed is left out."""
        calls = []
        for call in self.calls:
            try:
                calls.append(Call(call.op, {k: _fill(v, references) for k, v in call.args.items()}))
            except KeyError:
                continue
        facts = {}
        for name, fact in self.facts.items():
            try:
                facts[name] = _fill(fact, references)
            except KeyError:
                facts[name] = fact.name if isinstance(fact, Param) else str(fact)
        return Hint(self.key, *calls, **facts)

    def to_data(self) -> dict[str, Any]:
        calls = [{"op": c.op, "args": dict(c.args)} for c in self.calls]
        return {"key": self.key, "calls": calls, "facts": self.facts}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Hint:
        return cls(data["key"], *(Call(c["op"], c["args"]) for c in data["calls"]), **data["facts"])


def _fill(value: Any, references: Mapping[str, Any]) -> Any:
    if isinstance(value, Param):
        return references[value.name]
    if isinstance(value, list | tuple):
        return [_fill(v, references) for v in value]
    return value


class EngineError(Exception):
    """A refusal: nothing was changed. `step` and `round` are set by the program executor."""

    code = "error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: Hint | None = None,
        op: str | None = None,
        param: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.hint = hint
        self.op = op
        self.param = param
        self.facts = facts
        self.step: list[int] | None = None
        self.round: list[int] | None = None

    def to_data(self) -> dict[str, Any]:
        """The error as plain data, to cross a process border."""
        return {
            "class": type(self).__name__,
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint.to_data() if self.hint else None,
            "op": self.op,
            "param": self.param,
            "facts": self.facts,
            "step": self.step,
            "round": self.round,
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> EngineError:
        """The error that `to_data` described; an unknown class becomes a Bug."""
        hint = Hint.from_data(data["hint"]) if data.get("hint") else None
        error = CLASSES.get(data["class"], Bug)(data["detail"], code=data["code"], hint=hint)
        error.op, error.param, error.facts = data.get("op"), data.get("param"), dict(data.get("facts") or {})
        error.step, error.round = data.get("step"), data.get("round")
        return error


class Malformed(EngineError):
    code = "malformed"


class NotFound(EngineError):
    code = "not-found"


class NoSuchTensor(NotFound):
    code = "no-such-tensor"


class NoSuchOp(NotFound):
    code = "no-such-op"


class NoSuchSession(NotFound):
    code = "no-such-session"


class NoSuchJob(NotFound):
    code = "no-such-job"


class NoGrad(NotFound):
    code = "no-grad"


class NotAcceptable(EngineError):
    code = "not-acceptable"


class Unsupported(EngineError):
    code = "unsupported-media-type"


class Conflict(EngineError):
    code = "conflict"


class TapeFreed(Conflict):
    code = "tape-freed"


class SavedChanged(Conflict):
    code = "saved-tensor-changed"


class LeafInPlace(Conflict):
    code = "leaf-changed-in-place"


class NameTaken(Conflict):
    code = "name-taken"


class Gone(EngineError):
    code = "session-gone"


class PreconditionFailed(EngineError):
    code = "precondition-failed"


class TooLarge(EngineError):
    code = "body-too-large"


class Invalid(EngineError):
    code = "invalid"


class UnknownParameter(Invalid):
    code = "unknown-parameter"


class MissingParameter(Invalid):
    code = "missing-parameter"


class WrongType(Invalid):
    code = "wrong-type"


class LimitExceeded(Invalid):
    code = "limit-exceeded"


class ShapeMismatch(Invalid):
    code = "shape-mismatch"


class DtypeMismatch(Invalid):
    code = "dtype-mismatch"


class KernelLacksDtype(DtypeMismatch):
    """PyTorch's kernel is not there for a dtype: what PyTorch finds out last, after shapes and casts."""

    code = "dtype-not-implemented"


class DeviceMismatch(Invalid):
    code = "device-mismatch"


class NoSuchDevice(Invalid):
    code = "no-such-device"


class DimOutOfRange(Invalid):
    code = "dim-out-of-range"


class IndexOutOfRange(Invalid):
    code = "index-out-of-range"


class NotScalar(Invalid):
    code = "backward-needs-gradient"


class NoGradient(Invalid):
    code = "does-not-require-grad"


class GradcheckFailed(Invalid):
    code = "gradcheck-failed"


class Unavailable(EngineError):
    code = "not-applied"


class DeviceLost(Unavailable):
    """What this process asks of its GPU fails from now on; a new process can go on. The worker ends on it."""


class QueueFull(Unavailable):
    code = "queue-full"


class OutOfTime(EngineError):
    code = "time-limit"


class OutOfMemory(EngineError):
    code = "out-of-memory"


class Bug(EngineError):
    code = "internal-error"


def _tree(root: type[EngineError]) -> Sequence[type[EngineError]]:
    found = [root]
    for sub in root.__subclasses__():
        found.extend(_tree(sub))
    return found


CLASSES: dict[str, type[EngineError]] = {cls.__name__: cls for cls in _tree(EngineError)}


# ---------------------------------------------------------------- when all is said


def let_go(error: BaseException) -> None:
    """Forgets the way that an error has come, once it was told to whoever asked.

    The frames on it hold what was waited for, and that holds the error: a cycle of about 10 kB, which would wait for
    the garbage collector.
    """
    way: list[BaseException | None] = [error]
    seen: set[int] = set()
    while way:
        one = way.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            way += (one.__cause__, one.__context__)
