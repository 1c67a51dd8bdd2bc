"""A single operation, which is the commonest program there is, by a way of its own: without the machinery of steps,
rounds and turns that it does not need.

What an operation takes under which names is found out once for each *form*, an operation with the names of the
parameters that are given; what they are given is read anew each time. A result that is new memory and nothing else,
kept under an id and perhaps a name, is the *plain* case, whose effects are known before they are made: its commit is
written down in its short form, and its answer as a row of fields. So it is with one that is an old small tensor written
to, but for the short form. Every other result ends as programs do.

`run_single` gives None where it leaves a program to the general way, as if it had never seen it: that is always right.
So it refuses nothing of what is wrong with a program's text, and runs nothing that it does not know. Both ways are held
together by `tests/engine/test_single.py`.
"""

from __future__ import annotations

import time
from math import inf
from typing import Any

from engine import bounds
from engine.answer import TensorAnswer
from engine.arguments import read_argument
from engine.backend import CPU
from engine.commit import SETTINGS, Commit, Light, data_of, make_commit, written
from engine.context import active, out_of_time
from engine.errors import EngineError, OutOfTime
from engine.literal import WORDS, read
from engine.op import REGISTRY, Op, ParamSpec, Spec, choose, spelled
from engine.program import step_error
from engine.scope import Outcome, Scope, locate, named
from engine.steps import Program, Step, check_name
from engine.tensor import Tensor, fresh
from engine.undo import Borrowed, Undo

LOCAL = "r"  # what its result is called within it
VALUES_LIMIT = 1000  # `values=auto` shows tensors up to this many elements
SLICE_S = 0.001  # how long a program runs before others get a turn, at the next step boundary
COPIED = 2048  # bytes of a tensor that stand in its commit themselves: such a commit outlives later changes
_FORMS = 4096  # forms and names that are remembered
_OUT, _RETURN = {"whole": LOCAL}, [LOCAL]
_FIELDS = frozenset(("steps", "return", "keep_all", "no_grad", "if_none_match", "expect"))
_STEP = ("op", "args", "out")
_NOTHING = object()


class Form:
    """An operation with the names that its arguments have. `args`: each one's name, its place, its parameter, and
    whether a string is a reference there and a list a tensor's values."""

    __slots__ = ("args", "op")

    def __init__(self, op: Op, args: list[tuple[str, int, ParamSpec, bool, bool]]) -> None:
        self.op, self.args = op, args


_forms: dict[tuple[str, ...], Form | Op] = {}
_variants: dict[tuple[Op, tuple[str, ...]], Form] = {}
_names: set[str] = set()  # that may be a tensor's


class Single:
    """One operation that was done, until it is kept or taken back.

    `fields` are those of the answer's tensor where it is nothing but its values, else there is a `reply`; `commit`:
    what changed, None for nothing. `lasting`: whether the commit stays true whatever later programs do.
    """

    __slots__ = ("_ids", "_op", "_replaced", "_reply", "_session", "_told", "_undo", "commit", "fields", "lasting")

    def __init__(self, session: Any, op: Op, told: Any, undo: Undo) -> None:
        self._session, self._op, self._told, self._undo = session, op, told, undo
        self.fields: tuple[Any, ...] | None = None
        self.commit: Commit | Light | None = None
        self.lasting = False
        self._reply: dict[str, Any] | None = None
        self._ids: dict[str, Any] = {}
        self._replaced: tuple[Tensor, str, Tensor | None, str | None] | None = None

    @property
    def reply(self) -> dict[str, Any]:
        """What the caller is answered."""
        if self._reply is None:
            assert self.fields is not None
            self._reply = reply_of(self.fields)
        return self._reply

    def keep(self) -> None:
        """It was written, or need not be."""
        session = self._session
        session.history.add(self._told, self._ids)
        tally, name = session.tally, self._op.name
        tally.programs += 1
        tally.steps += 1
        tally.ops[name] = tally.ops.get(name, 0) + 1

    def take_back(self, *, failed: bool = True) -> None:
        """It could not be written: the session is as it was before. Not `failed`: it will be run again."""
        session, undo = self._session, self._undo
        session.tally.failed += failed
        if self._replaced is not None:
            _unbind(session, *self._replaced)
        else:
            undo.rollback()
        session.ctx.seq = undo.start_seq - 1
        session.ctx.undo = Undo(undo.start_seq)


def reply_of(fields: tuple[Any, ...]) -> dict[str, Any]:
    """The reply of a plain result, as a program's."""
    results = {LOCAL: TensorAnswer(*fields)}
    return {"results": results, "collected": {}, "kept": {}, "steps_run": 1, "plans": []}


def run_single(session: Any, program: Any, values: str, *, journal: bool, alone: bool = True) -> Single | None:
    """Runs a program if it is a single operation; None where the general way has to, and nothing was done.

    `journal`: whether a commit is wanted. Raises EngineError, nothing changed then. Not `alone`: operations before it
    may still be taken back; then only a plain result that is kept counts, or a write, and everything else is None.
    """
    if type(program) is not dict or not program.keys() <= _FIELDS or program.get("return") != _RETURN:
        return None
    steps, keep = program.get("steps"), program.get("keep_all", _NOTHING)
    if type(steps) is not list or len(steps) != 1 or type(steps[0]) is not dict:
        return None
    step, ctx, names = steps[0], session.ctx, None
    args = step.get("args")
    if step.get("out") != _OUT or type(args) is not dict or len(step) != 3:
        return None
    limits = session.limits
    if ctx.anomaly or ctx.sync or ctx.op_times is not None or ctx.trail or limits.max_steps < 1 or limits.max_run < 1:
        return None
    if keep is not _NOTHING:
        if type(keep) is not dict or len(keep) != 1 or LOCAL not in keep:
            return None
        names = keep[LOCAL]
        if names is not None and (type(names) is not str or names not in _names) and not _are_names(names):
            return None
    for flag in ("no_grad", "if_none_match"):
        if flag in program and type(program[flag]) is not bool:
            return None
    expect = program.get("expect")
    if expect is not None and not _is_expected(expect):
        return None
    form = _form(step.get("op"), args)
    if form is None:
        return None
    with active(ctx):
        try:
            given = _arguments(form, args, session)
        except Exception:  # noqa: BLE001 - whatever it is, the general way finds it again, and says it
            return None
        if given is None:
            return None
        ctx.ran = None
        session.last_used = time.time()
        told = session.history.keep(program, session.counter)
        undo = ctx.undo
        if not undo.empty or undo.bytes_held or undo.start_seq != ctx.seq + 1:
            undo = ctx.undo = Undo(ctx.seq + 1)
        single = None
        try:
            if expect is not None:
                session._check_expected(Program(expect=expect))
            found = _run(form.op, given, args, session, no_grad=program.get("no_grad", False))
            single = Single(session, form.op, told, undo)
            if (
                (alone or keep is not _NOTHING)
                and _may_be(names, session, program)
                and _is_plain(found, undo, ctx, values)
            ):
                if keep is not _NOTHING:
                    _keep_plain(single, found, names, journal=journal)
                single.fields = _fields(found, session, values)
            elif _is_written(found, undo, ctx, values) and (names is None or names == found.name):
                if keep is not _NOTHING:
                    single._ids = {LOCAL: found.id}
                single.fields, single.lasting = _fields(found, session, values), True
                if journal:
                    single.commit = written(found.storage, undo, session)
                ctx.undo = Undo(ctx.seq + 1)
            elif alone:
                _end(single, found, keep, program, values, journal=journal)
            else:
                _undone(session, undo, single)
                return None
        except Borrowed:
            _undone(session, undo, single)
            return None
        except BaseException as problem:
            _undone(session, undo, single)
            if not alone and isinstance(problem, Exception):
                return None
            session.tally.failed += 1
            raise
        finally:
            ctx.deadline = inf
            session._fresh = []
            session._reached = None
    return single


def _undone(session: Any, undo: Undo, single: Single | None) -> None:
    """Takes back what an operation did that has not ended."""
    if single is not None and single._replaced is not None:
        _unbind(session, *single._replaced)
    undo.rollback()
    ctx = session.ctx
    ctx.seq = undo.start_seq - 1
    ctx.grad_enabled = True
    ctx.undo = Undo(undo.start_seq)


# ---------------------------------------------------------------- what is given


def _are_names(names: Any) -> bool:
    """Whether results may be kept under them: one, or a list of some and nulls."""
    if type(names) is not str and type(names) is not list:
        return False
    try:
        for name in [names] if type(names) is str else names:
            if name is not None:
                check_name(name)
    except EngineError:
        return False
    if type(names) is str:
        if len(_names) >= _FORMS:
            _names.clear()
        _names.add(names)
    return True


def _is_expected(expect: Any) -> bool:
    return type(expect) is dict and all(type(k) is str and type(v) is str for k, v in expect.items())


def _form(name: Any, args: dict[str, Any]) -> Form | None:
    """The form of a call; None where the general way has to say what is wrong with it."""
    if type(name) is not str:
        return None
    key = (name, *args)
    form = _forms.get(key)
    if form is None:
        op = REGISTRY.get(name)
        if op is None or (op.internal and name.startswith("_")):
            return None
        found = op if op.overloads else _bound(op, op, tuple(args))
        if found is None:
            return None
        if len(_forms) >= _FORMS:
            _forms.clear()
        form = _forms[key] = found
    if isinstance(form, Form):
        return form
    try:
        op = choose(form, dict(spelled(form, args)))
    except EngineError:
        return None
    variant = (op, key[1:])
    found = _variants.get(variant)
    if found is None:
        found = _bound(op, form, key[1:])
        if found is None:
            return None
        if len(_variants) >= _FORMS:
            _variants.clear()
        _variants[variant] = found
    return found


def _bound(op: Op, head: Op, names: tuple[str, ...]) -> Form | None:
    """The form of an operation, one of the variants of `head`, with these names; None where they do not fit."""
    if op.functions:
        return None
    own = tuple(spelled(head, dict.fromkeys(names)))
    bound: list[tuple[str, int, ParamSpec, bool, bool]] = []
    for name, spelt in zip(names, own, strict=True):
        at = op.positions.get(spelt)
        if at is None:
            return None
        p = op.params[at]
        parts = [part for part in p.form.removesuffix("?").split("|") if part != "scalar"]
        bound.append((name, at, p, parts[:1] == ["tensor"], parts == ["tensor"]))
    if any(p.required and p.name not in own for p in op.params):
        return None
    return Form(op, bound)


def _arguments(form: Form, args: dict[str, Any], session: Any) -> list[Any] | None:
    """The arguments as the operation takes them; None where one stands for nothing. Raises what is wrong with them."""
    op, ctx = form.op, session.ctx
    given = list(op.defaults)
    scope = None
    for name, at, p, refers, spells in form.args:
        value = args[name]
        kind = type(value)
        if refers and kind is str and value not in WORDS:
            t = session.tensors.get(value)
            if t is None:
                t = session.names.get(value)
                if t is None:
                    return None
            given[at] = t
        elif spells and kind is list:
            array, d = read(value, None, None, ctx.default_dtype, param=p.name)
            ctx.admit(array.nbytes)
            backend = ctx.default_backend
            given[at] = fresh(backend.from_host(array), Spec(array.shape, d), backend, ctx.ledger)
        else:
            fixed, made = read_argument(op, p, value)
            if not fixed:
                scope = scope or Scope(session, False)
                made = made(scope)
            given[at] = made
    return given


# ---------------------------------------------------------------- the operation


def _run(op: Op, given: list[Any], args: dict[str, Any], session: Any, *, no_grad: bool) -> Any:
    """Runs the operation. Raises what it refuses, with where it was."""
    ctx, limit = session.ctx, session.limits.max_seconds
    begin = time.perf_counter()
    ctx.deadline = begin + limit if limit else inf
    ctx.ran = 0, 1, [], []
    if no_grad:
        ctx.grad_enabled = False
    try:
        found = op.run(tuple(given))
    except (EngineError, Borrowed) as problem:
        if isinstance(problem, EngineError):
            raise _located(problem, op, args, 0) from None
        raise
    except Exception as problem:
        error = step_error(ctx, problem)
        if error is None:
            raise
        raise _located(error, op, args, 0) from problem
    finally:
        ctx.grad_enabled = True
    ctx.ran = 1, 1, [], []
    if limit and (spent := time.perf_counter() - begin) > SLICE_S and spent > limit:
        raise _located(out_of_time(limit), op, args, 1)
    return named(op, found) if op.fields is not None else found


def _located(error: EngineError, op: Op, args: dict[str, Any], steps_run: int) -> EngineError:
    locate(error, Step(op, [], [], LOCAL, False, dict(spelled(op, args))), [0], [])
    if isinstance(error, OutOfTime):
        error.facts["steps_run"] = steps_run
    return error


# ---------------------------------------------------------------- how it ends


def _is_plain(t: Any, undo: Undo, ctx: Any, values: str) -> bool:
    """Whether the operation made one tensor, on memory of its own, and did nothing else."""
    return (
        type(t) is Tensor
        and not t.uid
        and t.id is None
        and not t.storage.uid
        and not (undo.slots or undo.items or undo.storages or undo.generators)
        and _is_simple(t, undo, ctx, values)
    )


def _is_written(t: Any, undo: Undo, ctx: Any, values: str) -> bool:
    """Whether the operation wrote into one small tensor that was there, which it gives, and did nothing else."""
    return (
        type(t) is Tensor
        and t.id is not None
        and t.array.nbytes <= COPIED
        and len(undo.storages) == len(undo.slots) == 1
        and id(t.storage) in undo.storages
        and (id(t.storage), "version") in undo.slots
        and not (undo.items or undo.generators)
        and _is_simple(t, undo, ctx, values)
    )


def _is_simple(t: Tensor, undo: Undo, ctx: Any, values: str) -> bool:
    """Whether a tensor is nothing but its values, which the answer has, alone on its memory; and nothing was taped."""
    array = t.array
    return (
        t.view is None
        and t.edge is None
        and t.grad is None
        and t.backend is CPU
        and not (t.retains or t.offset)
        and array is t.storage.buf
        and 0 < array.nbytes == t.spec.nbytes
        and array.dtype is t.spec.dtype.np
        and array.flags.c_contiguous
        and ctx.seq == undo.start_seq - 1
        and (values == "none" or (values == "auto" and array.size <= VALUES_LIMIT))
    )


def _may_be(name: Any, session: Any, program: dict[str, Any]) -> bool:
    """Whether it is one name or none, that can be given anew, and no more is to be said of whoever had it than that it
    is gone."""
    if name is None:
        return True
    if type(name) is not str:
        return False
    old = session.names.get(name)
    return old is None or (old.view is None and not program.get("if_none_match", False))


def _fields(t: Tensor, session: Any, values: str) -> tuple[Any, ...]:
    """What Session.answer says of a simple tensor, in the order of TensorAnswer's fields."""
    array, spec, storage = t.array, t.spec, t.storage
    return (
        t.id,
        t.name,
        spec.shape,
        spec.dtype.name,
        "cpu",
        array.size,
        storage.nbytes,
        t.requires_grad,
        True,
        None,
        storage.version,
        session.etag(t) if t.uid else None,
        array if values == "auto" else None,
        None,
        t.strides,
    )


def _keep_plain(single: Single, t: Tensor, name: str | None, *, journal: bool) -> None:
    """Keeps a plain result: what Session.register, release and make_commit do for it."""
    session = single._session
    tensors, names = session.tensors, session.names
    old = None if name is None else names.get(name)
    limits = session.limits
    old_id = None if old is None else old.id
    counter = session.counter = session.counter + 1
    id = t.id = f"t{counter}"
    tensors[id] = t
    if old is not None:
        session.count_tape_from -= old.storage.nbytes
        tensors.pop(old_id, None)
        names.pop(name, None)
        old.id = old.name = None
    if name is not None:
        t.name = name
        names[name] = t
    single._replaced = t, id, old, old_id
    held = len(names)
    if held > limits.max_names or len(tensors) - held > limits.max_unnamed:
        bounds.check_holdings(session, added=True, recorded=False)
    uid = t.uid = session.uids + 1
    storage = t.storage
    session.uids = storage.uid = uid + 1
    nbytes = storage.nbytes
    single._ids = {LOCAL: id}
    single.lasting = nbytes <= COPIED
    if journal:
        ctx, array, spec = session.ctx, t.array, t.spec
        settings: list[Any] | None = [ctx.default_dtype.name, ctx.print_options, ctx.anomaly]
        if settings == SETTINGS:
            settings = None
        data = array.tobytes() if nbytes <= COPIED else data_of(array, CPU)
        gone, let = ([], []) if old is None else ([old_id], [old.uid])
        row = [uid, storage.version, spec.dtype.name, spec.shape, t.requires_grad, id, name, None, data]
        single.commit = Light([ctx.seq, counter, uid + 1, settings, gone, [], [row]], [uid], let)


def _unbind(session: Any, t: Tensor, id: str, old: Tensor | None, old_id: str | None) -> None:
    """Takes a plain result's id and name from it, and gives them back to whoever had them."""
    tensors, names, name = session.tensors, session.names, t.name
    session.counter -= 1
    del tensors[id]
    t.id = t.name = None
    if old is not None:
        old.id, old.name = old_id, name
        tensors[old_id] = names[name] = old
    elif name is not None:
        del names[name]


def _end(single: Single, found: Any, keep: Any, program: dict[str, Any], values: str, *, journal: bool) -> None:
    """Ends it as programs end."""
    session = single._session
    ctx, scope = session.ctx, Scope(session, False)
    scope.names[LOCAL] = found
    told = Program(returns=_RETURN, if_none_match=program.get("if_none_match", False))
    if keep is not _NOTHING:
        told.keep_all = keep
    session._fresh = []
    single._reply = session._finish(told, Outcome(scope, {}, 1, total=1), values)
    if keep is not _NOTHING:
        single._ids = {LOCAL: ids_of(found)}
    undo = single._undo
    if journal and not (undo.empty and not session._fresh):
        single.commit = make_commit(undo, session._reached, session)
    ctx.undo = Undo(ctx.seq + 1)


def ids_of(found: Any) -> Any:
    """The ids of what a result is made of."""
    if type(found) is Tensor:
        return found.id
    if type(found) is list:
        return [ids_of(x) for x in found]
    return {k: ids_of(x) for k, x in found.items()} if type(found) is dict else None
