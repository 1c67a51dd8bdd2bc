"""Tensor, Storage and views.

A Storage owns bytes, a version and its share of the session's ledger. A Tensor is a storage, an offset, sizes and
strides, and the ndarray made of them. Two tensors alias if and only if they have the same storage; neither `.base`
nor `may_share_memory` is asked, since both lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from engine.backend import CPU, Array, Backend
from engine.dtypes import DType
from engine.errors import LimitExceeded
from engine.op import Op, Spec
from engine.shapes import Shape, contiguous_strides, extent, is_contiguous, is_dense


class Ledger:
    """Bytes held by the storages of one session, kept exact by their birth and death.

    `held` counts all of them, `on_devices` those on devices other than the CPU, by name.
    """

    __slots__ = ("__weakref__", "held", "limit", "on_devices", "owner", "parent")

    def __init__(self, limit: int, parent: ServerLedger | None = None, owner: str = "") -> None:
        self.held = 0
        self.on_devices: dict[str, int] = {}
        self.limit = limit
        self.parent = parent
        self.owner = owner
        if parent is not None:
            parent.sessions.add(self)


def _cannot(nbytes: int) -> None:
    """Makes no room."""


class Tally:
    """What the sessions of a worker have done since it started. Counted once a program, so that steps cost nothing."""

    __slots__ = ("failed", "ops", "programs", "seconds", "steps")

    def __init__(self) -> None:
        self.programs = self.failed = self.steps = 0
        self.ops: dict[str, int] = {}  # steps by operation, each round's counted
        self.seconds: dict[str, float] | None = None  # of those, where they are timed

    def to_data(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class ServerLedger:
    """Bytes held by all sessions of a worker, added up when asked: that is seldom, and births and deaths are many.

    `reclaim` makes room for so many bytes where it can, before something is refused.
    """

    __slots__ = ("lent", "limit", "owner_limit", "plans", "reclaim", "sessions", "tally")

    def __init__(self, limit: int, owner_limit: int | None = None) -> None:
        self.limit = limit
        self.owner_limit = owner_limit
        self.reclaim: Callable[[int], None] = _cannot
        self.sessions: WeakSet[Ledger] = WeakSet()
        self.tally = Tally()
        self.plans: Any = None  # those that the worker keeps (engine.replays.Plans)
        self.lent: dict[str, int] = {}  # bytes that more than one session is charged for, by device

    @property
    def held(self) -> int:
        return sum(ledger.held for ledger in self.sessions) - sum(self.lent.values())

    def held_by(self, owner: str) -> int:
        """Bytes held by the sessions of one owner."""
        return sum(ledger.held for ledger in self.sessions if ledger.owner == owner)

    def held_on(self, device: str) -> int:
        """Bytes of all sessions on one device."""
        lent = self.lent.get(device, 0)
        if device != "cpu":
            return sum(ledger.on_devices.get(device, 0) for ledger in self.sessions) - lent
        return sum(ledger.held - sum(ledger.on_devices.values()) for ledger in self.sessions) - lent


class Lent:
    """Memory that storages of several sessions stand on until one of them is to be written: that one gets its own.

    Each session is charged for all of it, as if it had copies; the server's ledger counts it once.
    """

    __slots__ = ("device", "nbytes", "server", "standing")

    def __init__(self, nbytes: int, device: str, server: ServerLedger | None) -> None:
        self.nbytes, self.device, self.server = nbytes, device, server
        self.standing = 1

    def join(self) -> None:
        """One storage more."""
        self._stand(1)

    def leave(self) -> None:
        """One storage less."""
        self._stand(-1)

    def _stand(self, more: int) -> None:
        before = max(self.standing - 1, 0)
        self.standing += more
        if self.server is not None:
            change = (max(self.standing - 1, 0) - before) * self.nbytes
            self.server.lent[self.device] = self.server.lent.get(self.device, 0) + change


class Lendable:
    """Memory that somebody else may be given to read where it lies, as what came in by a descriptor is.

    While anybody reads it, a storage on it is not written to: it gets memory of its own first, as a fork does.
    """

    __slots__ = ("readers",)
    LENT_FROM = 1 << 20  # bytes: below, a copy costs less than keeping count
    out = 0  # how many readers all such memory has together

    def __init__(self) -> None:
        self.readers = 0


def lendable(array: Any) -> Lendable | None:
    """What a host array stands on, if that can be lent."""
    if array.nbytes >= Lendable.LENT_FROM:
        owner = array.base
        while type(owner) is type(array):
            owner = owner.base
        if isinstance(owner, Lendable):
            return owner
    return None


# Storage, Tensor and Node have no __slots__: what is seldom set has its default on the class, which makes them cheaper
# to create, and they are created by every operation. What every operation reads is set on the object: CPython reads
# that three times as fast.


class Storage:
    """Bytes on one device. `buf` is the array that owns them, dense in some order of its dimensions.

    `version` counts writes. `uid` is 0 until a commit holds it.
    """

    uid = 0
    lent: Lent | None = None  # where other sessions stand on the same memory
    origin: Lendable | None = None  # where it may be read by others
    _flat: Array = None

    def __init__(self, buf: Array, backend: Backend, ledger: Ledger) -> None:
        self.buf = buf
        self.backend = backend
        self.ledger = ledger
        self.version = 0
        self.nbytes: int = buf.nbytes
        ledger.held += self.nbytes
        if backend is not CPU:
            ledger.on_devices[backend.name] = ledger.on_devices.get(backend.name, 0) + self.nbytes

    def __del__(self) -> None:
        if self.lent is not None:
            self.lent.leave()
        self.ledger.held -= self.nbytes
        if self.backend is not CPU:
            self.ledger.on_devices[self.backend.name] -= self.nbytes

    @property
    def read(self) -> bool:
        """Whether somebody else reads the memory just now."""
        return self.origin is not None and self.origin.readers > 0

    @property
    def flat(self) -> Array:
        """All elements as one contiguous 1-d array on the same memory."""
        if self._flat is None:
            self._flat = self.backend.flat(self.buf).reshape(-1)
        return self._flat


class View:
    """What a view knows of its origin: the base, and the steps from the base to it.

    `differentiable` is False where no gradient passes (views of detached tensors start anew and have none of this).
    `creation` says how it was made, for the in-place changes that PyTorch refuses: "default", "no_grad", "multi".
    `version` is the storage's version for which the tensor's edge was computed.
    """

    __slots__ = ("base", "creation", "steps", "version")

    def __init__(self, base: Tensor, steps: tuple[Step, ...], creation: str, version: int) -> None:
        self.base = base
        self.steps = steps
        self.creation = creation
        self.version = version


Step = tuple[Op, tuple[Any, ...], int]  # a view operation, its arguments without the tensor, which output


class Tensor:
    """A tensor. `edge` is (node, output index) where the tape computed it; a leaf has None."""

    offset = 0
    uid = 0  # 0 until a commit holds it
    id: str | None = None
    name: str | None = None
    grad: Tensor | None = None
    retains = False  # whether it gets its gradient though it is no leaf
    _strides: Shape | None = None

    def __init__(self, array: Array, spec: Spec, storage: Storage, backend: Backend) -> None:
        self.array = array
        self.spec = spec
        self.storage = storage
        self.backend = backend
        self.requires_grad = False
        self.edge: tuple[Any, int] | None = None
        self.view: View | None = None

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    @property
    def numel(self) -> int:
        return self.spec.numel

    @property
    def nbytes(self) -> int:
        return self.spec.nbytes

    @property
    def device(self) -> str:
        return self.backend.name

    @property
    def strides(self) -> Shape:
        """In elements. A dimension of size 1 has PyTorch's stride, not NumPy's, where the tensor is contiguous."""
        strides = self._strides
        if strides is None:
            if self.array.flags.c_contiguous:
                strides = contiguous_strides(self.spec.shape)
            else:
                size = self.spec.dtype.itemsize
                strides = tuple([s // size for s in self.array.strides])
            self._strides = strides
        return strides

    @property
    def is_leaf(self) -> bool:
        return self.edge is None

    @property
    def version(self) -> int:
        return self.storage.version

    @property
    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous or is_contiguous(self.shape, self.strides)

    @property
    def is_dense(self) -> bool:
        return self.array.flags.c_contiguous or is_dense(self.shape, self.strides)

    def touched(self) -> tuple[int, int]:
        """The range of its storage's flat elements that it covers."""
        scale = self.spec.dtype.itemsize / self.storage.buf.itemsize
        low = self.offset
        high = low + extent(self.shape, self.strides)
        if scale == 1:
            return low, high
        return int(low * scale), -int(-high * scale // 1)

    def __repr__(self) -> str:
        return f"Tensor({self.id or ''}{list(self.shape)}, {self.spec.dtype.name}, {self.device})"

    def __bool__(self) -> bool:
        raise TypeError("a rule must not branch on the values of a tensor")


def fresh(array: Array, spec: Spec, backend: Backend, ledger: Ledger) -> Tensor:
    """A tensor that owns `array`, which must be dense and seen by nobody else."""
    return Tensor(array, spec, Storage(array, backend, ledger), backend)


MAX_DIMS = 64  # NumPy's


def view_of(source: Tensor, shape: Shape, strides: Shape, offset: int, dtype: DType | None = None) -> Tensor:
    """A tensor on the memory of `source`; strides and offset in elements of the result. No autograd is set."""
    if len(shape) > MAX_DIMS:
        raise LimitExceeded(f"this would have {len(shape)} dimensions, and a tensor has at most {MAX_DIMS}")
    storage, backend = source.storage, source.backend
    d = dtype or source.spec.dtype
    size = d.itemsize
    if 0 in shape:
        array = backend.xp.empty(shape, dtype=d.np)
    else:
        array = backend.view(storage.flat, d.np, shape, offset * size, [s * size for s in strides])
    t = Tensor(array, Spec(shape, d), storage, backend)
    t.offset = offset
    t._strides = strides
    return t
