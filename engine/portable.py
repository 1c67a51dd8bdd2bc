"""A session as tensors by key and one description of them, which another session, of any server, can take up.

What goes along: the tensors that have a name or are leaves, the gradients of those, which of them share memory and how
they lie in it, flags, the generator, the default dtype and the print options. The tape stays behind: what it computed
arrives as values without a history.

    {"format": "curlgrad session 1",
     "tensors": {key: {"id", "dtype", "shape", "device", "requires_grad", "is_leaf", "aliases": [key],
                       "storage", "offset", "strides"}},
     "storages": [bytes], "states": {name: {field: [key]}}, "generator": {"cpu", "devices"}: base64,
     "default_dtype", "print_options", "anomaly"}

A key is the tensor's name, or its id where it has none; `<key>.grad` is its gradient, without an id. `offset` and
`strides`, in elements, and `storage`, an index into `storages`, are there where a tensor does not have all of its
memory to itself in row-major order. `aliases` and `states` (what `state: "<name>"` of an optimizer's step finds)
are for readers: they follow from the rest.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.answer import ArrayData
from engine.backend import CPU, Backend
from engine.context import Context
from engine.dtypes import DTYPES, DType, check_default_dtype
from engine.errors import Hint, Invalid
from engine.op import REGISTRY, Spec
from engine.shapes import contiguous_strides, extent
from engine.steps import check_name
from engine.tape import require_grad
from engine.tensor import Storage, Tensor, view_of

FORMAT = "curlgrad session 1"
_SEED = 8  # with which both states of a generator begin
_ALIGN = 16  # bytes: the largest element
_GRAD = ".grad"
_ID = re.compile(r"t[1-9][0-9]{0,17}")
_FIELDS = frozenset(
    ("format", "tensors", "storages", "states", "generator", "default_dtype", "print_options", "anomaly")
)
_ROW = frozenset(
    ("id", "dtype", "shape", "device", "requires_grad", "is_leaf", "aliases", "storage", "offset", "strides")
)

Json = dict[str, Any]


# ---------------------------------------------------------------- out


def chosen(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Those that go along, by key."""
    found: dict[str, Tensor] = {}
    for t in tensors:
        if t.name is None and not t.is_leaf:
            continue
        key = t.name or t.id or ""
        found[key] = t
        if t.grad is not None:
            found[key + _GRAD] = t.grad
    return found


def describe(session: Any, found: Mapping[str, Tensor], flags: Mapping[str, bool]) -> Json:
    """The description of a session and of those of its tensors that go along. `flags`: who requires grad."""
    ctx: Context = session.ctx
    sharing: dict[int, list[str]] = {}
    for key, t in found.items():
        sharing.setdefault(id(t.storage), []).append(key)
    storages: list[int] = []
    placed: dict[str, Json] = {}
    for keys in sharing.values():
        if len(keys) == 1 and _plain(found[keys[0]]):
            continue
        spans = [_span(found[key]) for key in keys if found[key].numel]
        start = min((low for low, _ in spans), default=0) // _ALIGN * _ALIGN
        for key in keys:
            t = found[key]
            offset = t.offset - start // t.dtype.itemsize if t.numel else 0
            placed[key] = {"storage": len(storages), "offset": offset, "strides": list(t.strides)}
        storages.append(max((high for _, high in spans), default=start) - start)
    rows = {
        key: {
            "id": t.id,
            "dtype": t.dtype.name,
            "shape": list(t.shape),
            "device": t.device,
            "requires_grad": flags[key],
            "is_leaf": t.is_leaf,
            "aliases": [other for other in sharing[id(t.storage)] if other != key],
            **placed.get(key, {}),
        }
        for key, t in found.items()
    }
    return {
        "format": FORMAT,
        "tensors": rows,
        "storages": storages,
        "states": _states(session),
        "generator": {
            "cpu": base64.b64encode(ctx.rng.get_state()).decode(),
            "devices": base64.b64encode(ctx.rng.get_device_state()).decode(),
        },
        "default_dtype": ctx.default_dtype.name,
        "print_options": dict(ctx.print_options),
        "anomaly": ctx.anomaly,
    }


def _plain(t: Tensor) -> bool:
    """Whether a tensor is all of its memory, in row-major order."""
    return t.offset == 0 and t.storage.nbytes == t.nbytes and t.strides == contiguous_strides(t.shape)


def _span(t: Tensor) -> tuple[int, int]:
    """The bytes of its storage that lie between its first element and the end of its last."""
    size = t.dtype.itemsize
    return t.offset * size, (t.offset + extent(t.shape, t.strides)) * size


def _states(session: Any) -> Json:
    heads = {name.rsplit(".", 2)[0] for name in session.names if name.count(".") >= 2}
    found = {head: session.find_state(head) for head in sorted(heads)}
    return {
        head: {field: [t.name or t.id for t in group] for field, group in state.items()}
        for head, state in found.items()
        if state is not None
    }


# ---------------------------------------------------------------- in


def restore(session: Any, about: Any, arrays: Mapping[str, ArrayData], device: str | None) -> dict[str, Tensor]:
    """Puts what a description and its arrays say in the place of all that the session holds; the tensors, by key.

    They get new ids, in the order of the description: no id of a session is ever used twice. Runs inside of a program,
    whose undo log takes all of it back where it ends in an error. `device`: where all tensors are to be; None: each
    where it was. Raises Invalid for what is no such description, or does not fit its arrays; NoSuchDevice, OutOfMemory.
    """
    ctx: Context = session.ctx
    rows = _checked(about, arrays)
    generator = about["generator"]
    states = [_bytes(_field(generator, name, str, "generator"), f"generator.{name}") for name in ("cpu", "devices")]
    if len(states[1]) != 2 * _SEED or states[1][:_SEED] != states[0][:_SEED]:
        raise _wrong("generator.devices is no state of the seed in generator.cpu", "generator")
    default = check_default_dtype(_field(about, "default_dtype", str))
    anomaly = _field(about, "anomaly", bool)
    options = _print_options(ctx, about["print_options"])
    for t in list(session.tensors.values()):
        session.release(t)
    made = _tensors(ctx, about["storages"], rows, arrays, device)
    for key, row in rows.items():
        t = made[key]
        if row["requires_grad"] and row["is_leaf"] and not key.endswith(_GRAD):
            require_grad(t)
        if not key.endswith(_GRAD):
            session.register(t, None if key == row["id"] else key)
    for key, t in made.items():
        if key.endswith(_GRAD):
            owner = made[key.removesuffix(_GRAD)]
            ctx.undo.slot(owner, "grad")
            owner.grad = t
    undo = ctx.undo
    for name, value in (("default_dtype", default), ("print_options", options), ("anomaly", anomaly)):
        undo.force_slot(ctx, name)
        setattr(ctx, name, value)
    rng = ctx.touch_rng()
    rng.set_state(states[0])
    rng.set_device_state(states[1])
    return made


def _wrong(detail: str, param: str | None = None) -> Invalid:
    words = f"the snapshot cannot be taken up: {detail}"
    return Invalid(words, code="bad-snapshot", hint=Hint("snapshot-how"), param=param)


def _field(where: Any, name: str, kind: type, what: str = "it") -> Any:
    value = where.get(name) if type(where) is dict else None
    if type(value) is not kind:
        raise _wrong(f"{what} has no {name!r} that is {_KINDS[kind]}", name)
    return value


_KINDS = {str: "a string", bool: "true or false", dict: "an object", list: "a list", int: "a whole number"}


def _checked(about: Any, arrays: Mapping[str, ArrayData]) -> dict[str, Json]:
    """The rows of a description whose form is right, and which is of these arrays."""
    if _field(about, "format", str) != FORMAT:
        raise _wrong(f"its format is {about['format']!r:.100}, and {FORMAT!r} is read here", "format")
    if set(about) - _FIELDS:
        raise _wrong(f"it has the unknown field {min(set(about) - _FIELDS)!r:.100}")
    _field(about, "generator", dict)
    _field(about, "print_options", dict)
    rows: dict[str, Json] = _field(about, "tensors", dict)
    storages = _field(about, "storages", list)
    if not all(type(size) is int and 0 <= size < 1 << 62 for size in storages):
        raise _wrong("storages is a list of numbers of bytes", "storages")
    if set(rows) != set(arrays):
        lacking = min(set(rows) ^ set(arrays))
        raise _wrong(f"{lacking!r:.300} is described and not there, or there and not described")
    ids: set[str] = set()
    for key, row in rows.items():
        _check_row(key, row, arrays[key], rows, len(storages))
        if row["id"] is not None and row["id"] in ids:
            raise _wrong(f"two tensors have the id {row['id']}", key)
        ids.add(row["id"] or "")
    return rows


def _check_row(key: str, row: Any, array: ArrayData, rows: Json, storages: int) -> None:
    what = f"{key!r:.300}"
    dtype = _field(row, "dtype", str, what)
    _field(row, "device", str, what)
    _field(row, "requires_grad", bool, what)
    _field(row, "is_leaf", bool, what)
    if set(row) - _ROW:
        raise _wrong(f"{what} has the unknown field {min(set(row) - _ROW)!r:.100}", key)
    sizes = list(array.array.shape)
    if dtype != array.dtype or row.get("shape") != sizes:
        said = f"{dtype:.20} of shape {row.get('shape')!r:.300}"
        raise _wrong(f"{what} is described as {said}, and is {array.dtype} of shape {sizes}", key)
    if key.endswith(_GRAD):
        owner = rows.get(key.removesuffix(_GRAD))
        if row.get("id") is not None or owner is None or key.removesuffix(_GRAD).endswith(_GRAD):
            raise _wrong(f"{what} is the gradient of nothing", key)
        if type(owner) is not dict or owner.get("dtype") != dtype or owner.get("shape") != row["shape"]:
            raise _wrong(f"{what} is not of the dtype and shape of what it is the gradient of", key)
    else:
        id = row.get("id")
        if type(id) is not str or not _ID.fullmatch(id):
            raise _wrong(f"{what} has no id", key)
        if key != id:
            check_name(key)
    if row["requires_grad"] and not (DTYPES[dtype].is_floating or DTYPES[dtype].is_complex):
        raise _wrong(f"{what} is {dtype} and cannot require grad", key)
    place = [row.get(name) for name in ("storage", "offset", "strides")]
    if place == [None, None, None]:
        return
    storage, offset, strides = place
    if not (
        type(storage) is int
        and 0 <= storage < storages
        and type(offset) is int
        and 0 <= offset < 1 << 60
        and type(strides) is list
        and len(strides) == array.array.ndim
        and all(type(n) is int and 0 <= n < 1 << 60 for n in strides)
    ):
        raise _wrong(f"{what} does not say rightly where it lies: storage, offset and strides", key)


def _bytes(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(f"{name} is not base64", name) from None


def _print_options(ctx: Context, given: Json) -> Json:
    """Print options of which each is what `set_printoptions` leaves there."""
    kinds = {"precision": (int,), "edgeitems": (int,), "linewidth": (int,), "threshold": (int, float)}
    for name, value in given.items():
        if name == "sci_mode" and (value is None or type(value) is bool):
            continue
        if type(value) not in kinds.get(name, ()):
            raise _wrong(f"print_options has {name!r:.100}: {value!r:.100}", "print_options")
    if not given:
        return {}
    ctx.undo.force_slot(ctx, "print_options")
    before, ctx.print_options = ctx.print_options, {}
    try:
        names = ("precision", "threshold", "edgeitems", "linewidth", "profile", "sci_mode")
        REGISTRY["set_printoptions"].run(tuple(given.get(name) for name in names))
        return {name: value for name, value in ctx.print_options.items() if name in given}
    finally:
        ctx.print_options = before


def _tensors(
    ctx: Context, sizes: Sequence[int], rows: Mapping[str, Json], arrays: Mapping[str, ArrayData], device: str | None
) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    groups: dict[int, list[str]] = {}
    for key, row in rows.items():
        if "storage" in row:
            groups.setdefault(row["storage"], []).append(key)
            continue
        backend, d = ctx.find(device or row["device"]), DTYPES[row["dtype"]]
        array = arrays[key].array
        ctx.admit(array.nbytes)
        buf = backend.from_host(array.copy())
        made[key] = Tensor(buf, Spec(array.shape, d), Storage(buf, backend, ctx.ledger), backend)
    for number, keys in groups.items():
        devices = {device or rows[key]["device"] for key in keys}
        if len(devices) > 1:
            raise _wrong(f"tensors on {' and '.join(sorted(devices))} share storage {number}", keys[0])
        made.update(_shared(ctx, sizes[number], {key: rows[key] for key in keys}, arrays, ctx.find(devices.pop())))
    return {key: made[key] for key in rows}


def _shared(
    ctx: Context, size: int, rows: Mapping[str, Json], arrays: Mapping[str, ArrayData], backend: Backend
) -> dict[str, Tensor]:
    """Tensors in one memory. What none of them covers is zero; where they overlap they must agree."""
    own: DType = DTYPES[next(iter(rows.values()))["dtype"]]
    for key, row in rows.items():
        item = DTYPES[row["dtype"]].itemsize
        if (row["offset"] + extent(row["shape"], row["strides"])) * item > size:
            raise _wrong(f"{key!r:.300} does not fit into its memory of {size} bytes", key)
    nbytes = size + -size % _ALIGN
    ctx.admit(2 * nbytes if backend is not CPU else nbytes)
    host = np.zeros(nbytes // own.itemsize, own.np)
    places = {}
    for key, row in rows.items():
        d = DTYPES[row["dtype"]]
        if 0 in row["shape"]:
            continue
        strides = [n * d.itemsize for n in row["strides"]]
        places[key] = CPU.view(host, d.np, tuple(row["shape"]), row["offset"] * d.itemsize, strides)
        places[key][...] = arrays[key].array
    for key, place in places.items():
        if np.ascontiguousarray(place).tobytes() != arrays[key].array.tobytes():
            raise _wrong(f"{key!r:.300} shares memory with others, and its values are not theirs", key)
    buf = backend.from_host(host)
    storage = Storage(buf, backend, ctx.ledger)
    origin = Tensor(buf, Spec(buf.shape, own), storage, backend)
    return {
        key: view_of(origin, tuple(row["shape"]), tuple(row["strides"]), row["offset"], DTYPES[row["dtype"]])
        for key, row in rows.items()
    }
