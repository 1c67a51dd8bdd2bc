"""A session: a namespace of tensors with its own generator and defaults, where programs run.

Everything that changes a session is a program, and every program ends in a commit or leaves no trace.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import engine.ops  # noqa: F401  the operations register themselves
from engine import bounds
from engine.answer import TensorAnswer
from engine.arguments import parse_slice
from engine.commit import Commit, Reached, make_commit
from engine.context import Context, Progress, active, grad_mode, out_of_time
from engine.dryrun import dry_run as run_dry
from engine.dtypes import check_default_dtype
from engine.errors import Hint, Invalid, NameTaken, NoGrad, PreconditionFailed, WrongType
from engine.explain import Watch, on_tensor
from engine.fork import fork, separate
from engine.graph import graph_of
from engine.history import History, Told
from engine.holders import Holdings
from engine.limits import Limits
from engine.portable import chosen, describe, restore
from engine.printing import PrintOptions, describe_text, tensor_text
from engine.program import run_program
from engine.random import Generator as RandomGenerator
from engine.rebuild import Rebuild
from engine.record import REC
from engine.replays import Plans
from engine.scope import Outcome, Scope
from engine.single import SLICE_S, VALUES_LIMIT, Single, ids_of, run_single
from engine.steps import Program, count_steps
from engine.tape import shown_grad_fn
from engine.tensor import Ledger, ServerLedger, Storage, Tally, Tensor
from engine.undo import Borrowed, Undo

Reply = dict[str, Any]


class Session:
    """Tensors by id and name, on one worker. `owner` is the principal that may touch it."""

    def __init__(
        self,
        id: str,
        *,
        owner: str = "",
        name: str | None = None,
        device: str = "cpu",
        seed: int | None = None,
        default_dtype: str = "float32",
        limits: Limits | None = None,
        devices: Sequence[str] = ("cpu",),
        offered: Sequence[str] | None = None,
        sync: bool = False,
        server: ServerLedger | None = None,
        on_commit: Callable[[Commit], None] | None = None,
        incarnation: str | None = None,
    ) -> None:
        self.id = id
        self.owner = owner
        self.name = name
        self.limits = limits or Limits()
        self.created = self.last_used = time.time()
        rng = RandomGenerator()
        self.seed = rng.seed() if seed is None else seed
        rng.manual_seed(self.seed)
        self.ctx = Context(
            ledger=Ledger(self.limits.session_bytes, server, owner),
            rng=rng,
            default_dtype=check_default_dtype(default_dtype),
            device=device,
            devices=devices,
            offered=offered,
            sync=sync,
        )
        self.ctx.session = self
        self.ctx.plan_from = self.limits.plan_from
        shared = None if server is None else server.plans
        self.plans: Plans = Plans(self.limits.plan_bytes) if shared is None else shared
        self.ctx.plans = self.plans
        self.ctx.max_seconds = self.limits.max_seconds
        self.tally = Tally() if server is None else server.tally
        if self.limits.op_times:
            self.tally.seconds = self.ctx.op_times = {} if self.tally.seconds is None else self.tally.seconds
        self.history = History(
            self.limits.history_bytes, seed=self.seed, default_dtype=default_dtype, device=self.ctx.default_backend.name
        )
        self.count_tape_from = self.limits.tape_bytes  # held bytes from which the tape's have to be counted
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[str, Tensor] = {}
        self.counter = 0
        self.uids = 0
        self.incarnation = incarnation or secrets.token_hex(4)
        self.on_commit = on_commit
        self._fresh: list[Tensor] = []
        self._reached: Reached | None = None

    # ------------------------------------------------ names

    def find(self, reference: str) -> Tensor | None:
        t = self.tensors.get(reference)
        return self.names.get(reference) if t is None else t

    def references(self) -> list[str]:
        return [*self.names, *(t.id or "" for t in self.tensors.values() if t.name is None)]

    def find_state(self, reference: str) -> dict[str, list[Tensor]] | None:
        """An optimizer state that was kept under a name: tensors called `name.field.0`, `name.field.1`, …"""
        groups: dict[str, dict[int, Tensor]] = {}
        for name, t in self.names.items():
            head, _, number = name.rpartition(".")
            if number.isdigit() and head.startswith(reference + "."):
                groups.setdefault(head[len(reference) + 1 :], {})[int(number)] = t
        return {field: [found[i] for i in sorted(found)] for field, found in groups.items()} or None

    def register(self, t: Tensor, name: str | None, *, fresh_name: bool = False) -> None:
        """Gives a tensor its id and perhaps a name; a name in use moves to it, as a Python variable would."""
        undo = self.ctx.undo
        if t.id is None:
            undo.force_slot(self, "counter")
            self.counter += 1
            undo.slot(t, "id")
            t.id = f"t{self.counter}"
            undo.item(self.tensors, t.id)
            self.tensors[t.id] = t
            self._fresh.append(t)
        if name is None or t.name == name:
            return
        old = self.names.get(name)
        if old is not None:
            if fresh_name:
                raise NameTaken(f"the name {name!r} is taken", hint=Hint("name-taken", name=name), param="name")
            self.release(old)
        if t.name is not None:
            undo.item(self.names, t.name)
            del self.names[t.name]
        undo.slot(t, "name")
        t.name = name
        undo.item(self.names, name)
        self.names[name] = t

    def release(self, t: Tensor) -> None:
        """Forgets a tensor's id and name. Its memory is returned when no tape and no view needs it."""
        undo = self.ctx.undo
        undo.slot(t, "id")
        undo.slot(t, "name")
        self.count_tape_from -= t.storage.nbytes  # it may be the tape's from now on
        if t.id is not None:
            undo.item(self.tensors, t.id)
            self.tensors.pop(t.id, None)
        if t.name is not None:
            undo.item(self.names, t.name)
            self.names.pop(t.name, None)
        t.id = t.name = None

    def existed(self, reference: str) -> bool:
        """Whether an id was given once, though it may be gone."""
        return reference[:1] == "t" and reference[1:].isdigit() and 1 <= int(reference[1:]) <= self.counter

    def get(self, reference: str) -> Tensor | None:
        """What a reference stands for; None for `x.grad` where there is none. Raises NoSuchTensor."""
        found = Scope(self, False).resolve(reference, None)
        return found if type(found) is Tensor else None

    # ------------------------------------------------ programs

    def run(
        self, program: Any, *, values: str = "auto", dry_run: bool = False, explain: bool = False
    ) -> Generator[Reply | None, None, Reply]:
        """Runs a program, yielding at step boundaries; returns the reply. Raises EngineError, nothing changed then.

        Where `on_commit` is given and something changed, it gets the commit, and the reply is yielded once before it is
        returned: whoever keeps the commit does so then, and throws in what went wrong, which takes everything back.
        `explain` adds `notes`, by returned name (see engine.explain).
        """
        ctx = self.ctx
        ctx.ran = None
        self.last_used = time.time()
        compiled = self.plans.compiled(program, self.limits, self.owner)
        if dry_run:
            if explain:
                raise Invalid("a dry run has no results to explain: ask for one of the two", param="explain")
            with active(ctx):
                return run_dry(compiled, self)
        if explain:
            compiled.entry = None  # what is explained has to be there when all is over: no plan leaves it
        told = self.history.keep(program, self.counter)
        own_all = False
        while True:
            try:
                return (yield from self._attempt(compiled, told, values, explain))
            except Borrowed as found:
                with active(ctx):
                    separate(self, None if own_all else found.storage)
                own_all = True
                compiled = self.plans.compiled(program, self.limits, self.owner)

    def single(self, program: Any, values: str, *, journal: bool, alone: bool = True) -> Single | None:
        """Runs a program that is a single operation; None where `run` has to. See engine.single."""
        return run_single(self, program, values, journal=journal, alone=alone)

    def _attempt(
        self, compiled: Program, told: Told | None, values: str, explain: bool
    ) -> Generator[Reply | None, None, Reply]:
        """Runs a program. Raises Borrowed where it would write into memory that other sessions stand on."""
        ctx = self.ctx
        watch = Watch(compiled) if explain else None
        limit, spent = self.limits.max_seconds, 0.0
        undo = ctx.undo = Undo(ctx.seq + 1)
        self._fresh = []
        running = run_program(compiled, self)
        try:
            checked = False
            while True:
                with active(ctx):
                    if not checked:
                        self._check_expected(compiled)
                        checked = True
                    begin = time.perf_counter()
                    ctx.deadline = begin + limit - spent if limit else math.inf
                    outcome = _slice(running)
                    spent += time.perf_counter() - begin
                    if outcome is not None:
                        reply = self._finish(compiled, outcome, values)
                        every = {local: ids_of(outcome.scope.resolve(local, "keep")) for local in compiled.keep_all}
                        if watch is not None:
                            reply["notes"] = watch.notes(outcome.scope)
                        kept = self._commit()
                    elif limit and spent > limit:
                        running.throw(out_of_time(limit))
                if outcome is None:
                    yield None
                    continue
                if kept:
                    yield reply
                self.history.add(told, {**reply["kept"], **every})
                self.tally.programs += 1
                self.tally.steps += outcome.steps_run
                count_steps(compiled.steps, self.tally.ops)
                return reply
        except BaseException:
            self.tally.failed += 1
            running.close()
            undo.rollback()
            ctx.seq = undo.start_seq - 1
            ctx.grad_enabled = True
            raise
        finally:
            ctx.deadline = math.inf
            ctx.undo = Undo(ctx.seq + 1)
            self._fresh = []
            self._reached = None
            ctx.ran, ctx.outcome = self._progress(), None

    def progress(self) -> dict[str, Any] | None:
        """How far the running program is, or how far the last one came; None where it has not begun.

        `steps_run` of `steps` (of a function that an operation calls one call is counted), and the repeats under way,
        the outer one first: `rounds` of `of`. `collected` has the lists themselves, which grow.
        """
        found = self._progress()
        if found is None:
            return None
        outcome = self.ctx.outcome
        steps_run, steps, rounds, of = found
        return {
            "steps_run": steps_run,
            "steps": max(steps, steps_run),
            "rounds": rounds,
            "of": of,
            "collected": {} if outcome is None else outcome.collected,
        }

    def _progress(self) -> Progress | None:
        outcome = self.ctx.outcome
        if outcome is None:
            return self.ctx.ran
        return outcome.steps_run, outcome.total, list(outcome.rounds), list(outcome.times)

    def _check_expected(self, program: Program) -> None:
        for reference, tag in program.expect.items():
            t = self.get(reference)
            if t is None or self.etag(t) != tag:
                raise PreconditionFailed(
                    f"{reference!r} has changed since: its etag is {None if t is None else self.etag(t)!r}",
                    hint=Hint("read-again", name=reference),
                    param=reference,
                )

    def _finish(self, program: Program, outcome: Outcome, values: str) -> Reply:
        scope = outcome.scope
        if program.contents is not None:
            scope.names.update(restore(self, **program.contents))
        results = {name: scope.resolve(name, "return") for name in program.returns}
        if values == "all":
            bounds.check_answer(self.limits, sum(t.numel for t in _flat(results) if type(t) is Tensor))
        kept: dict[str, Any] = {}
        for local, name in program.keep.items():
            kept[local] = self._keep(scope.resolve(local, "keep"), name, program.if_none_match)
        for local, names in program.keep_all.items():
            self._keep_all(scope.resolve(local, "keep"), names, program.if_none_match)
        bounds.check_holdings(self, added=bool(self._fresh), recorded=self.ctx.seq >= self.ctx.undo.start_seq)
        self._reached = Reached(self.ctx.undo, self._fresh, self._next_uid)  # from here on what is new has its uid
        reply: Reply = {
            "results": {name: self.result(found, values) for name, found in results.items()},
            "collected": outcome.collected,
            "kept": {local: ids_of(found) for local, found in kept.items()},
            "steps_run": outcome.steps_run,
            "plans": [{"step": list(path), **report.told()} for path, report in outcome.plans.items()],
        }
        return reply

    def _keep(self, found: Any, name: str, fresh_name: bool) -> Any:
        if type(found) is Tensor:
            self.register(found, name, fresh_name=fresh_name)
        elif type(found) is list:
            for i, part in enumerate(found):
                if part is not None:
                    self._keep(part, f"{name}.{i}", fresh_name)
        elif type(found) is dict:
            for field, part in found.items():
                self._keep(part, f"{name}.{field}", fresh_name)
        else:
            raise WrongType("only tensors can be kept, and this is none", param="keep")
        return found

    def _keep_all(self, found: Any, names: str | list[str | None] | None, fresh_name: bool) -> None:
        tensors = [t for t in _flat(found) if type(t) is Tensor]
        if isinstance(names, list):
            if len(names) != len(tensors):
                raise Invalid(
                    f"this gives {len(tensors)} tensors, but out_names has {len(names)}",
                    code="out-count",
                    param="out_names",
                    hint=Hint("out-count", count=len(tensors)),
                )
            for t, name in zip(tensors, names, strict=True):
                self.register(t, name, fresh_name=fresh_name)
        elif names is not None and type(found) is not Tensor and tensors:
            self._keep(found, names, fresh_name)
        else:
            for t in tensors:
                self.register(t, names, fresh_name=fresh_name)

    def holders(self) -> list[tuple[str, int, str]]:
        """What holds most of the session's memory: what it is called, its bytes, what to delete."""
        return Holdings(self.tensors.values()).biggest()

    def _next_uid(self) -> int:
        self.uids += 1
        return self.uids

    def _commit(self) -> bool:
        """Hands out the commit; False where nobody wants one, or nothing changed."""
        undo, reached = self.ctx.undo, self._reached
        if self.on_commit is None or reached is None or (undo.empty and not self._fresh):
            return False
        self.on_commit(make_commit(undo, reached, self))
        return True

    @classmethod
    def rebuild(cls, commits: Iterable[Mapping[str, Any]], id: str, **given: Any) -> Session:
        """A session equal to the one that made these commits."""
        session = cls(id, **given)
        work = Rebuild(session)
        with active(session.ctx):
            for commit in commits:
                work.apply(commit)
        session.ctx.undo = Undo(session.ctx.seq + 1)
        return session

    def pack(self) -> dict[str, Any] | None:
        """All that a session without tensors is, to make it anew elsewhere by `unpack`; None where it holds any."""
        if self.tensors or self.ctx.ledger.held:
            return None
        rng = self.ctx.rng
        return {
            "generator": [rng.get_state(), rng.get_device_state()],
            "default_dtype": self.ctx.default_dtype.name,
            "print_options": dict(self.ctx.print_options),
            "counters": [self.counter, self.uids, self.ctx.seq],
        }

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Becomes what `pack` described."""
        state, devices = packed["generator"]
        self.ctx.rng.set_state(state)
        self.ctx.rng.set_device_state(devices)
        self.seed = self.ctx.rng.initial_seed
        self.ctx.default_dtype = check_default_dtype(packed["default_dtype"])
        self.ctx.print_options = dict(packed["print_options"])
        self.counter, self.uids, self.ctx.seq = packed["counters"]
        self.ctx.undo = Undo(self.ctx.seq + 1)

    def fork(self, source: Session, public: str | None = None) -> None:
        """Becomes what the source is, whose public id that is, between two programs of it. Raises OutOfMemory."""
        with active(self.ctx):
            fork(self, source)
        self.seed = self.ctx.rng.initial_seed
        start = {"seed": self.seed, "default_dtype": self.ctx.default_dtype.name}
        self.history.fork(public, self.counter, device=self.ctx.default_backend.name, **start)
        self.ctx.undo = Undo(self.ctx.seq + 1)

    def close(self) -> None:
        """Frees everything, and at once: nothing is left for the garbage collector, which comes late."""
        self.tensors.clear()
        self.names.clear()
        self.on_commit = None
        self.ctx.close()

    # ------------------------------------------------ answers

    def etag(self, t: Tensor) -> str:
        """Changes with value, gradient, name and flag, and with the session's incarnation."""
        grad = t.grad
        parts = (
            t.uid,
            t.storage.uid,
            t.storage.version,
            t.name,
            t.requires_grad,
            None if grad is None else (grad.storage.uid, grad.storage.version),
            self.incarnation,
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=9).hexdigest()

    def result(self, found: Any, values: str) -> Any:
        """A program's result as an answer: tensors described, everything else as it is."""
        if type(found) is Tensor:
            return self.answer(found, values)
        if type(found) in (list, tuple):
            return [self.result(x, values) for x in found]
        if type(found) is dict:
            return {k: self.result(x, values) for k, x in found.items()}
        return found

    def answer(self, t: Tensor, values: str, *, grad: bool = True) -> TensorAnswer:
        numel = t.numel
        shown = host_values(t) if values == "all" or (values == "auto" and numel <= VALUES_LIMIT) else None
        return TensorAnswer(
            id=t.id,
            name=t.name,
            shape=t.shape,
            dtype=t.dtype.name,
            device=t.device,
            numel=numel,
            nbytes=t.nbytes,
            requires_grad=shown_requires_grad(t),
            is_leaf=t.edge is None and shown_grad_fn(t) is None,
            grad_fn=shown_grad_fn(t),
            version=t.version,
            etag=self.etag(t) if t.uid else None,
            values=shown,
            grad=self.answer(t.grad, values, grad=False) if grad and t.grad is not None else None,
            strides=t.strides,
        )

    # ------------------------------------------------ reads

    def query(self, q: Mapping[str, Any], values: str = "auto") -> Any:
        """Answers a read; nothing changes."""
        self.last_used = time.time()
        handler = _QUERIES.get(q["do"])
        if handler is None:
            raise Invalid(f"there is no query {q['do']!r}", code="unknown-query")
        ctx = self.ctx
        undo, seq = ctx.undo, ctx.seq  # a program of this session may be between two of its steps
        ctx.undo = Undo(seq + 1)
        try:
            with active(ctx), grad_mode(False):
                return handler(self, q, values)
        finally:
            ctx.undo, ctx.seq = undo, seq

    def _found(self, q: Mapping[str, Any]) -> Tensor:
        reference = q["ref"]
        t = self.get(reference)
        if t is None:
            raise NoGrad(
                f"{reference.removesuffix('.grad')!r} has no gradient yet",
                hint=Hint("no-grad-yet", name=reference.removesuffix(".grad")),
            )
        return t

    def _explain(self, q: Mapping[str, Any], values: str) -> list[Reply]:
        t = self._found(q)
        others = [(other.name or key, other) for key, other in self.tensors.items() if other is not t]
        return on_tensor(t, t.name or q["ref"], others)

    def _read(self, q: Mapping[str, Any], values: str) -> TensorAnswer:
        t = self._found(q)
        part = self._part(q, t)
        if values == "all" and q.get("spelled"):
            bounds.check_answer(self.limits, part.numel)
        if part is t:
            return self.answer(t, values)
        answer = self.answer(part, values, grad=False)
        answer.id, answer.name, answer.etag = t.id, t.name, self.etag(t)
        answer.requires_grad, answer.grad_fn = shown_requires_grad(t), shown_grad_fn(t)
        return answer

    def _part(self, q: Mapping[str, Any], t: Tensor) -> Tensor:
        index = q.get("index")
        return t if index is None else REC.getitem(t, [_index_part(p) for p in index.split(",")])

    def _grad(self, q: Mapping[str, Any], values: str) -> TensorAnswer:
        t = self._found({"ref": f"{q['ref']}.grad"})
        if values == "all" and q.get("spelled"):
            bounds.check_answer(self.limits, t.numel)
        return self.answer(t, values, grad=False)

    def _list(self, q: Mapping[str, Any], values: str) -> Reply:
        limit = q.get("limit") or 100
        cursor = q.get("cursor") or "t0"
        if not (cursor[:1] == "t" and cursor[1:].isdigit()):
            raise Invalid(
                f"{cursor!r} is no cursor: take the one that the page before gave", code="bad-cursor", param="cursor"
            )
        after = int(cursor[1:])
        ids = sorted(int(i[1:]) for i in self.tensors if int(i[1:]) > after)
        page = ids[:limit]
        more = len(ids) > limit
        tensors = [self.answer(self.tensors[f"t{i}"], "none") for i in page]
        return {"tensors": tensors, "cursor": f"t{page[-1]}" if more else None}

    def _export(self, q: Mapping[str, Any], values: str) -> dict[str, TensorAnswer]:
        wanted = q.get("names") or list(self.names)
        return {name: self.answer(self._found({"ref": name}), "all", grad=False) for name in wanted}

    def _snapshot(self, q: Mapping[str, Any], values: str) -> Reply:
        """All that engine.portable takes along: {"about": the description, "tensors": by key, with values}."""
        found = chosen(list(self.tensors.values()))
        self.ctx.admit(sum(t.nbytes for t in found.values() if not t.array.flags.c_contiguous))
        flags = {key: shown_requires_grad(t) for key, t in found.items()}
        return {
            "about": describe(self, found, flags),
            "tensors": {key: self.answer(t, "all", grad=False) for key, t in found.items()},
        }

    def _text(self, q: Mapping[str, Any], values: str) -> Reply:
        t = self._found(q)
        grad_fn = shown_grad_fn(t)
        return {
            "text": tensor_text(
                host_values(self._part(q, t)),
                t.dtype.name,
                requires_grad=shown_requires_grad(t) and grad_fn is None,
                grad_fn=grad_fn,
                device=t.device,
                default_dtype=self.ctx.default_dtype.name,
                options=PrintOptions(**self.ctx.print_options),
            )
        }

    def _describe(self, q: Mapping[str, Any], values: str) -> Reply:
        t = self._found(q)
        return {
            "text": describe_text(
                host_values(t),
                t.dtype.name,
                requires_grad=shown_requires_grad(t) and shown_grad_fn(t) is None,
                grad_fn=shown_grad_fn(t),
                device=t.device,
                default_dtype=self.ctx.default_dtype.name,
                options=PrintOptions(**self.ctx.print_options),
            )
        }

    def _graph(self, q: Mapping[str, Any], values: str) -> Reply:
        return graph_of(self._found(q))

    def _info(self, q: Mapping[str, Any], values: str) -> Reply:
        return {
            "tensors": len(self.tensors),
            "bytes": self.bytes_held(),
            "seed": self.ctx.rng.initial_seed,
            "device": self.ctx.default_backend.name,
            "default_dtype": self.ctx.default_dtype.name,
        }

    def _memory(self, q: Mapping[str, Any], values: str) -> Reply:
        return bounds.ledger_page(self, q.get("limit") or 100, q.get("cursor"))

    def bytes_by_device(self) -> dict[str, dict[str, int]]:
        """Bytes by device and what holds them: tensors, gradients, tape, and what a running program can undo."""
        return bounds.bytes_by_device(self)

    def _history(self, q: Mapping[str, Any], values: str) -> Reply:
        return self.history.to_data()

    def bytes_held(self) -> dict[str, int]:
        """Bytes by what holds them: tensors with an id, gradients, and what only the tape keeps."""
        held: dict[str, int] = {"tensors": 0, "grads": 0}
        seen: set[int] = set()

        def count(storage: Storage, what: str) -> None:
            if id(storage) not in seen:
                seen.add(id(storage))
                held[what] += storage.nbytes

        for t in self.tensors.values():
            count(t.storage, "tensors")
        for t in self.tensors.values():
            if t.grad is not None:
                count(t.grad.storage, "grads")
        total = self.ctx.ledger.held
        held["tape"] = total - sum(held.values())
        held["total"] = total
        return held


def _slice(running: Generator[None, None, Outcome]) -> Outcome | None:
    """Runs steps for about SLICE_S; the outcome when the program ended."""
    deadline = time.perf_counter() + SLICE_S
    try:
        while True:
            next(running)
            if time.perf_counter() > deadline:
                return None
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _flat(found: Any) -> list[Any]:
    if type(found) in (list, tuple):
        return [y for x in found for y in _flat(x)]
    if type(found) is dict:
        return [y for x in found.values() for y in _flat(x)]
    return [found]


def _index_part(part: str) -> Any:
    part = part.strip()
    if part == "...":
        return Ellipsis
    if part in ("None", "null"):
        return None
    if ":" in part:
        found = parse_slice(part)
        if found is not None:
            return found
    elif part.lstrip("-").isdigit():
        return int(part)
    raise Invalid(f"index takes numbers, slices and ..., got {part!r}", code="bad-index", param="index")


def shown_requires_grad(t: Tensor) -> bool:
    """The flag to show: also that of a view whose base got a history since."""
    return t.requires_grad or shown_grad_fn(t) is not None


def host_values(t: Tensor) -> np.ndarray[Any, Any]:
    """The values on the host, C-contiguous: perhaps the tensor's own memory, so whoever keeps them copies them."""
    host = t.backend.to_host(t.array)
    return np.ascontiguousarray(host).reshape(t.shape)


_QUERIES: dict[str, Callable[[Session, Mapping[str, Any], str], Any]] = {
    "read": Session._read,
    "explain": Session._explain,
    "grad": Session._grad,
    "list": Session._list,
    "export": Session._export,
    "snapshot": Session._snapshot,
    "text": Session._text,
    "describe": Session._describe,
    "graph": Session._graph,
    "info": Session._info,
    "memory": Session._memory,
    "history": Session._history,
}
