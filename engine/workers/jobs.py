"""Jobs: programs that nobody waits for. They live with their session, in its worker, and outlive whoever asked.

A job stands in its session's line as any call does; in place of a front there is its `Promise`, which takes the answer.
What a front asks of jobs waits for nothing but the step that is running, and costs a running program nothing: how far
it is, is read off it when somebody asks.

States: queued, running, done, failed, cancelled. The last three stay for `limits.jobs_s`, `limits.max_jobs` of each
owner at most. Results over 1 MiB are kept without the values of tensors (replies.py); those that are still in the
session as they were answered are read from there.

With a data directory a job is on the disk before it is told that it is taken (engine.durability.jobs), and the next
worker runs it again where it had not come to its end: one of several that a dead worker had is innocent but for that
which was running; that one is tried once more. It runs with an idempotency key, its own or the caller's, so that its
commit, where there is one, answers it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.bounds import step_overdue
from engine.durability.jobs import JobFiles
from engine.durability.records import Damaged
from engine.errors import EngineError, Hint, Invalid, OutOfMemory, Unavailable
from engine.workers.messages import CannotPack, Codec, Message, Peer
from engine.workers.replies import Replies

if TYPE_CHECKING:
    from engine.workers.seats import Seat
    from engine.workers.worker import Worker

MOST_SEEN = 10_000  # collected values in one answer
_MADE = ("id", "owner", "session", "values", "explain", "about", "key", "digest", "created")
_END = ("state", "ended", "reply", "problem", "seconds", "progress")

log = logging.getLogger("curlgrad.worker")


@dataclass(slots=True, eq=False)
class Job:
    """One program. `about` is the front's: kept, and given back. Times in seconds since 1970."""

    id: str
    owner: str
    session: str
    values: str
    explain: bool
    about: dict[str, Any]
    key: str | None  # the caller's idempotency key, with the digest of the request
    digest: str | None
    created: float
    call: Any = None  # its call, until it has ended
    state: str = "queued"
    ended: float | None = None
    reply: bytes | None = None  # as replies.py packs it
    problem: dict[str, Any] | None = None
    seconds: float = 0.0  # that it ran
    progress: dict[str, Any] = field(default_factory=dict)  # how far it came, when it has ended
    waiters: list[tuple[Peer, int]] = field(default_factory=list)  # who is told of its end
    cancelling: bool = False

    def head(self) -> dict[str, Any]:
        """What is written of it."""
        return {name: getattr(self, name) for name in (_MADE if self.ended is None else (*_MADE, *_END))}


class Promise:
    """Stands where a front would, and takes the answer of a job."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs, self._job = jobs, job

    def reply(self, message: Message) -> None:
        self._jobs.ended(self._job, message)


class Jobs:
    """The jobs of a worker. Everything runs in its thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._jobs: dict[str, Job] = {}
        self._keyed: dict[tuple[str, str], Job] = {}  # by session and idempotency key
        self._replies, self._codec = Replies(), Codec()
        self._files: JobFiles | None = None

    def keep(self, files: JobFiles, ran: str | None, *, overdue: bool = False) -> None:
        """From now on jobs outlive this worker. Those on the disk are there; what has not ended stands in line again.

        `ran`: the call that was running when the worker before this one died; `overdue`: it was killed, because a step
        of that did not end.
        """
        self._files = files
        for id, head, ended in files.all():
            job = Job(**head)
            job.call = None
            self._add(job)
            if not ended:
                self._again(id, job, ran, overdue=overdue)
        self.tidy(self._worker.sessions.wall())

    def _again(self, id: str, job: Job, ran: str | None, *, overdue: bool) -> None:
        files = self._files
        assert files is not None
        error: EngineError
        try:
            if ran == id and overdue:
                raise step_overdue(self._worker.limits.max_seconds)
            if ran == id and files.tried(id):
                raise Invalid(
                    "this program has ended its worker twice, and is not run again",
                    code="killed-worker",
                    hint=Hint("killed-worker"),
                )
            body, blobs = files.program(id)
            program = self._codec.unpack(body, blobs)
            self._line_up(job, program, self._worker.sessions.find({"session": job.session}))
            return
        except EngineError as problem:
            error = problem
        except (Damaged, OSError) as problem:
            error = Unavailable(f"the job's program cannot be read any more: {problem}")
        self.ended(job, {"error": error.to_data(), "run_ms": 0.0})

    # ------------------------------------------------ what a front asks

    def take(self, peer: Peer, message: Message) -> dict[str, Any]:
        """A new job, or the one that was made with the same idempotency key or is sent again. Raises as a call would.

        `waiter`: the number by which the front waits for the job's end.
        """
        job = self._jobs.get(message["job"]) or self._same(message) or self._new(message)
        number = message.get("waiter")
        if number is not None:
            if job.ended is None:
                job.waiters.append((peer, number))
            else:
                self._tell(peer, number, self._end_of(job))
        return self._described(job)

    def look(self, peer: Peer, message: Message) -> dict[str, Any] | None:
        """A job as it stands; None where it is not here. `seen`: how many collected values of each name, in the order
        of their first appearance, are known already: those that follow are told. `result`: tell the result, too."""
        job = self._find(message)
        if job is None:
            return None
        told = self._described(job)
        reply = self._reply_of(job) if job.reply is not None and ("seen" in message or message.get("result")) else None
        if "seen" in message:
            self._tell_collected(job, reply, message["seen"], told)
        if message.get("result"):
            told["reply"] = reply
        return told

    def all(self, peer: Peer, message: Message) -> list[dict[str, Any]]:
        """The owner's jobs, in the order of their making."""
        self.tidy(self._worker.sessions.wall())
        return [self._described(job) for job in self._jobs.values() if job.owner == message["owner"]]

    def drop(self, peer: Peer, message: Message) -> bool | None:
        """Cancels a job; True where that ended it, False where it had ended, None where it is not here."""
        job = self._find(message)
        if job is None:
            return None
        if job.ended is not None:
            return False
        job.cancelling = True
        self._worker.cancel(job.call)
        return True

    words: Mapping[str, Callable[[Jobs, Peer, Message], Any]] = {"job": take, "look": look, "jobs": all, "drop": drop}

    def leave(self, peer: Peer) -> None:
        """A front is gone: it is told of nothing any more."""
        for job in self._jobs.values():
            if job.waiters:
                job.waiters = [waiter for waiter in job.waiters if waiter[0] is not peer]

    # ------------------------------------------------ from making to end

    def _same(self, message: Message) -> Job | None:
        """The job that was made with the same idempotency key, unless it changed nothing and may be tried anew."""
        if message.get("key") is None:
            return None
        job = self._keyed.get((message["session"], message["key"]))
        if job is None or job.state in ("failed", "cancelled"):
            return None
        if job.digest != message["digest"]:
            raise Invalid(
                "this Idempotency-Key was used for another request; nothing was done",
                code="idempotency-key-reused",
                hint=Hint("new-idempotency-key"),
            )
        return job

    def _new(self, message: Message) -> Job:
        worker = self._worker
        seat = worker.admit(message)
        job = Job(
            message["job"],
            seat.owner,
            seat.id,
            message["values"],
            message["explain"],
            message["about"],
            message.get("key"),
            message.get("digest"),
            worker.sessions.wall(),
        )
        program = message.pop("program")
        if self._files is not None:
            store = worker.sessions.store
            assert store is not None
            worker.flush()  # the session itself may not be written yet
            self._sync()
            body, blobs = self._codec.pack(program)
            self._files.begin(job.id, job.head(), body, blobs)
        self._add(job)
        self._line_up(job, program, seat, message.get("sent"))
        return job

    def _sync(self) -> None:
        """What a job follows, or what it did, is to be on the disk before what is written of the job."""
        store = self._worker.sessions.store
        if self._files is not None and self._files.sync and store is not None:
            store.log.sync_now()

    def _add(self, job: Job) -> None:
        self._jobs[job.id] = job
        if job.key is not None:
            self._keyed[job.session, job.key] = job

    def _line_up(self, job: Job, program: dict[str, Any], seat: Seat, sent: float | None = None) -> None:
        key, digest = job.key, job.digest
        if key is None and self._files is not None:
            key = digest = f"job {job.id}"
        message = {
            "id": 0,
            "do": "run",
            "call": job.id,
            "session": job.session,
            "program": program,
            "values": job.values,
            "dry_run": False,
            "explain": job.explain,
            "key": key,
            "digest": digest,
            "sent": sent,
        }
        job.call = self._worker.line_up(Promise(self, job), message, seat)

    def ended(self, job: Job, message: Message) -> None:
        """A job's program was answered."""
        call, job.call = job.call, None
        if call is not None:
            job.progress = _far(call) or {}
            job.progress.pop("collected", None)
        waiters, job.waiters = job.waiters, []
        for peer, number in waiters:
            self._tell(peer, number, message)
        job.seconds = message["run_ms"] / 1e3
        if "error" in message:
            job.state, job.problem = "failed", message["error"]
            if job.cancelling and job.problem["code"] == "cancelled":
                job.state, job.problem = "cancelled", None
        else:
            job.state = "done"
            steps = message["ok"].get("steps_run", 0)
            job.progress.update(steps_run=steps, steps=steps)
            job.reply, _ = self._replies.pack(message["ok"], keyed=True)
        job.ended = self._worker.sessions.wall()
        if self._files is not None:
            try:
                self._sync()
            except EngineError as error:
                log.warning("job %s has ended, which the disk does not take: %s", job.id, error.detail)
            else:
                self._files.end(job.id, job.head())
        self.tidy(job.ended, job.owner)

    def _tell(self, peer: Peer, number: int, message: Message) -> None:
        try:
            peer.reply({**message, "id": number})
        except (MemoryError, CannotPack) as problem:
            error = OutOfMemory(f"no memory for the answer: {problem}")
            peer.reply({"id": number, "error": error.to_data(), "queue_ms": 0.0, "run_ms": 0.0})

    def tidy(self, now: float, owner: str | None = None) -> None:
        """Forgets what has ended long ago, and the oldest of more than an owner may have (of `owner`, where given)."""
        limits = self._worker.limits
        kept: dict[str, int] = {}
        for job in reversed(list(self._jobs.values())):
            if job.ended is None or (owner is not None and job.owner != owner):
                continue
            kept[job.owner] = kept.get(job.owner, 0) + 1
            if kept[job.owner] > limits.max_jobs or now - job.ended > limits.jobs_s:
                self._forget(job)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        if job.key is not None and self._keyed.get((job.session, job.key)) is job:
            del self._keyed[job.session, job.key]
        if self._files is not None:
            self._files.forget(job.id)

    # ------------------------------------------------ what is told

    def _find(self, message: Message) -> Job | None:
        job = self._jobs.get(message["job"])
        if job is None or job.owner != message["owner"]:
            return None
        if job.ended is not None and self._worker.sessions.wall() - job.ended > self._worker.limits.jobs_s:
            self._forget(job)
            return None
        return job

    def _described(self, job: Job) -> dict[str, Any]:
        call, limits = job.call, self._worker.limits
        state, position, far = job.state, None, job.progress
        if call is not None:
            far = {}
            if call.steps is not None:
                state, far = "running", _far(call) or {}
            else:
                position = call.seat.calls.index(call)
        return {
            "job": job.id,
            "session": job.session,
            "state": state,
            "created": job.created,
            "ended": job.ended,
            "kept_until": None if job.ended is None else job.ended + limits.jobs_s,
            "position": position,
            "steps_run": far.get("steps_run", 0),
            "steps": far.get("steps"),
            "rounds": far.get("rounds", []),
            "of": far.get("of", []),
            "seconds": job.seconds if call is None else call.ran,
            "about": job.about,
            "problem": job.problem,
        }

    def _tell_collected(self, job: Job, reply: Any, seen: list[int], told: dict[str, Any]) -> None:
        collected = {} if reply is None else reply["collected"]
        if told["state"] == "running":
            collected = (_far(job.call) or {}).get("collected", {})
        news: dict[str, list[Any]] = {}
        counts, left = [], MOST_SEEN
        for at, (name, values) in enumerate(collected.items()):
            start = seen[at] if at < len(seen) else 0  # beyond them where the job is run again after its worker died
            news[name] = values[start : start + left]
            left -= len(news[name])
            counts.append(start + len(news[name]))
        told["collected"] = {name: values for name, values in news.items() if values}
        told["seen"] = counts + seen[len(counts) :]
        told["more"] = any(count < len(values) for count, values in zip(counts, collected.values(), strict=True))

    def _reply_of(self, job: Job) -> dict[str, Any]:
        assert job.reply is not None
        reply = self._replies.unpack(job.reply)
        seat = self._worker.sessions.seats.get(job.session)
        if seat is not None and seat.session is not None and seat.idle:
            self._replies.fill(reply, seat.session, job.values)
        return reply

    def _end_of(self, job: Job) -> Message:
        """What a front is told that asks for the answer of a job that has ended."""
        timing = {"queue_ms": 0.0, "run_ms": job.seconds * 1e3}
        if job.reply is not None:
            return {"ok": self._reply_of(job), **timing}
        return {"error": job.problem, **timing}


def _far(call: Any) -> dict[str, Any] | None:
    session = call.seat.session
    found: dict[str, Any] | None = session.progress() if session is not None and call.steps is not None else None
    return found
