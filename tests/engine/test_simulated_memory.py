"""The stand-in for CuPy: indices that wrap, duplicates without order, atomic operations, views by pointer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine import simulated
from tests.engine.simulated_calls import DTYPES, hosts, on_device, run, sp, xp

# ---------------------------------------------------------------- indices


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_indices_wrap(dtype: Any) -> None:
    a = xp.asarray([10.0, 11.0, 12.0])
    signed = np.dtype(dtype).kind == "i"
    far = xp.asarray(np.array([3, 7, 100, -4 if signed else 2], dtype))
    wanted = [10, 11, 11, 12]
    assert a[far].tolist() == wanted
    assert a.take(far).tolist() == wanted
    assert xp.take(xp.stack([a, a]), far, axis=1)[1].tolist() == wanted
    assert xp.take_along_axis(a, far, 0).tolist() == wanted
    assert xp.stack([a, a])[far, far].tolist() == [10, 11, 11, 12]
    a[far] = -1.0
    assert a.tolist() == [-1, -1, -1]
    z = xp.zeros(3)
    xp.add.at(z, far, 1.0)
    assert z.tolist() == [1, 2, 1]
    z = xp.zeros(3)
    xp.put(z, far, 1.0)
    assert z.tolist() == [1, 1, 1]
    xp.put_along_axis(z, far, 5.0, 0)
    assert z.tolist() == [5, 5, 5]
    assert xp.take(a, 5).shape == ()


def test_python_integers_do_not_wrap() -> None:
    a = xp.zeros((3, 2))
    for key in (3, (0, 2), -4):
        with pytest.raises(IndexError):
            a[key]
    with pytest.raises(IndexError, match="too many indices"):
        a[0, 0, xp.asarray([0])]
    with pytest.raises(IndexError, match="integer or boolean"):
        a[xp.asarray([0.0])]
    with pytest.raises(IndexError, match="mask"):
        a[xp.asarray([True, False])]
    with pytest.raises(IndexError, match="empty axes"):
        xp.zeros((0, 2))[xp.asarray([0])]
    assert xp.zeros((0, 2))[xp.asarray([], dtype=np.int64)].shape == (0, 2)
    with pytest.raises(IndexError):
        xp.take_along_axis(a, xp.zeros((3, 1)), 1)
    with pytest.raises(IndexError, match="invalid entry"):
        xp.put(a, xp.asarray([6]), 1.0, mode="raise")


@pytest.mark.parametrize(
    "shape, key",
    [
        ((3,), (xp.asarray([0, 1, 0, 0]),)),
        ((3, 4), (slice(None), xp.asarray([3, 3, 0]))),
        ((3, 4), (xp.asarray([2, 2]), xp.asarray([1, 1]))),
        ((3, 4), (xp.asarray([[0], [0]]), xp.asarray([1, 1]))),
        ((2, 3, 4), (xp.asarray([1, 1]), slice(None), xp.asarray([0, 0]))),
        ((2, 3, 4), (0, slice(None), xp.asarray([0, 0]))),
        ((2, 3, 4), (Ellipsis, xp.asarray([0, 0]), 1)),
        ((2, 3, 4), (None, xp.asarray([0, 0]), slice(1, 3))),
        ((3, 4), (xp.asarray([True, False, True]), xp.asarray([2, 2]))),
    ],
)
def test_the_first_of_duplicates_wins(shape: tuple[int, ...], key: tuple[Any, ...]) -> None:
    """NumPy's assignment done by hand, in reverse: any order is right on a GPU, NumPy's is the one not to rely on."""
    ours, theirs = xp.zeros(shape), np.zeros(shape)
    host_key = tuple(k.get() if isinstance(k, simulated.ndarray) else k for k in key)
    values = 1.0 + np.arange(theirs[host_key].size).reshape(theirs[host_key].shape)
    places = np.arange(theirs.size).reshape(shape)[host_key].reshape(-1)
    for place, value in reversed(list(zip(places, values.reshape(-1), strict=True))):
        theirs.flat[place] = value
    ours[key] = xp.asarray(values)
    assert ours.tolist() == theirs.tolist()
    last = np.zeros(shape)
    last[host_key] = values
    if len(set(places)) < len(places):
        assert ours.tolist() != last.tolist()
    ours[key] = 7.0
    assert set(ours.get()[host_key].reshape(-1)) == {7.0}


def test_put_lets_the_first_win_too() -> None:
    a = xp.zeros(3)
    xp.put(a, xp.asarray([1, 1]), xp.asarray([5.0, 6.0]))
    assert a.tolist() == [0, 5, 0]
    b = xp.zeros((1, 3))
    xp.put_along_axis(b, xp.asarray([[2, 2]]), xp.asarray([[5.0, 6.0]]), 1)
    assert b.tolist() == [[0, 0, 5]]


def test_assignment_broadcasts_and_casts() -> None:
    a = xp.zeros((3, 4), np.int32)
    a[1] = xp.asarray([1.9, 2.9, 3.9, -4.9])
    assert a[1].tolist() == [1, 2, 3, -4]
    a[:, 0] = 9.7
    assert a[:, 0].tolist() == [9, 9, 9]
    a[xp.asarray([0, 2])] = xp.asarray([[5, 6, 7, 8]])
    assert a[2].tolist() == [5, 6, 7, 8]
    a[a > 6] = 0
    assert int(a.max()) == 6
    a[...] = xp.asarray(3)
    a[0, 0] = True
    assert a.tolist()[0] == [1, 3, 3, 3]
    with pytest.raises(OverflowError):
        xp.zeros(2, np.uint8)[0] = 300
    with pytest.raises(OverflowError):
        xp.zeros(2, np.uint8).fill(-1)
    with pytest.raises(ValueError, match="broadcast"):
        a[0] = xp.zeros(3)
    a.fill(xp.asarray(2.0))
    assert int(a.sum()) == 24
    with pytest.raises(ValueError, match="non-scalar"):
        a.fill(xp.zeros(1))


def test_races_are_refused() -> None:
    a = xp.arange(6.0)
    with pytest.raises(ValueError, match="overlaps its target"):
        a[1:] = a[:-1]
    with pytest.raises(ValueError, match="overlaps its target"):
        a[xp.asarray([1, 2])] = a[2:4]
    with pytest.raises(ValueError, match="overlaps its target"):
        xp.add.at(a, xp.asarray([1, 2]), a[2:4])
    a[::2] = a[1::2]  # neighbours, but no element of both
    assert a.tolist() == [1, 1, 3, 3, 5, 5]
    a[:] = a
    a[1:] = a[:-1].copy()
    assert a.tolist() == [1, 1, 1, 3, 3, 5]
    spread = xp.broadcast_to(xp.zeros((1, 3)), (2, 3))
    by_pointer = xp.ndarray((2, 3), float, a.data, (0, 8))
    for target in (spread, by_pointer):
        with pytest.raises(ValueError, match=r"overlap|read-only"):
            target[...] = 1.0
        with pytest.raises(ValueError, match=r"overlap|read-only"):
            xp.add(xp.ones((2, 3)), 1, out=target)
        with pytest.raises(ValueError, match=r"overlap|read-only"):
            xp.copyto(target, 1.0)


# ---------------------------------------------------------------- scatter


# What CUDA has an atomic operation for, as CuPy 14.2 uses it.
ATOMIC = {
    "add": {"int32", "int64", "uint32", "uint64", "float16", "float32", "float64"},
    "subtract": {"int32", "uint32"},
    "maximum": {"int32", "int64", "uint32", "uint64", "float32", "float64"},
    "minimum": {"int32", "int64", "uint32", "uint64", "float32", "float64"},
    "bitwise_and": {"int32", "int64", "uint32", "uint64"},
    "bitwise_or": {"int32", "int64", "uint32", "uint64"},
    "bitwise_xor": {"int32", "int64", "uint32", "uint64"},
}


@pytest.mark.parametrize("operation", list(ATOMIC))
def test_at_takes_only_what_has_atomics(operation: str) -> None:
    index, host_index = xp.asarray([1, 0, 1]), np.array([1, 0, 1])
    for dtype in DTYPES:
        ours, theirs = xp.ones(3, dtype), np.ones(3, dtype)
        values = np.array([1, 2, 3]).astype(dtype)
        if dtype.name in ATOMIC[operation]:
            getattr(xp, operation).at(ours, index, xp.asarray(values))
            getattr(np, operation).at(theirs, host_index, values)
            assert ours.tolist() == theirs.tolist()
        else:
            with pytest.raises(TypeError, match="atomic"):
                getattr(xp, operation).at(ours, index, xp.asarray(values))


def test_at_without_integer_arrays_and_elsewhere() -> None:
    a = xp.zeros((2, 2), np.complex64)
    xp.add.at(a, 0, 1j)  # no duplicates possible: an ordinary addition
    xp.add.at(a, xp.asarray([[True, False], [False, True]]), 1.0)
    assert a.tolist() == [[1 + 1j, 1j], [0, 1]]
    xp.add.at(a.real, (xp.asarray([0, 0]), xp.asarray([1, 1])), xp.asarray([1.0, 2.0], dtype=np.float32))
    assert a[0].tolist() == [1 + 1j, 3 + 1j]
    simulated.scatter_add(a.imag, xp.asarray([1, 1]), 1.0)
    assert a[1].tolist() == [2j, 1 + 2j]
    m = xp.zeros(2)
    simulated.scatter_max(m, xp.asarray([0, 0]), xp.asarray([2.0, 1.0]))
    simulated.scatter_min(m, xp.asarray([1, 1]), xp.asarray([-2.0, -1.0]))
    assert m.tolist() == [2, -2]
    xp.add.at(m, xp.asarray([0]), xp.asarray([1], dtype=np.int64))  # values are cast to the target's dtype
    assert m.tolist() == [3, -2]
    with pytest.raises(NotImplementedError):
        xp.multiply.at(m, xp.asarray([0]), 2.0)


def test_other_methods_of_ufuncs() -> None:
    a = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert xp.add.reduce(a).tolist() == [4, 6]
    assert xp.multiply.reduce(a, axis=1).tolist() == [2, 12]
    assert xp.add.accumulate(a, axis=1).tolist() == [[1, 3], [3, 7]]
    assert xp.subtract.outer(a[0], a[1]).tolist() == [[-2, -3], [-1, -2]]
    for method in (xp.maximum.reduce, xp.maximum.accumulate):
        with pytest.raises(NotImplementedError):
            method(a)


# ---------------------------------------------------------------- memory


def test_views_by_pointer() -> None:
    a = xp.asarray(np.arange(24, dtype=np.float32).reshape(4, 6))
    view = xp.ndarray((2, 3), np.float32, a.data + 4 * 7, (48, 8))
    assert view.tolist() == [[7, 9, 11], [19, 21, 23]]
    assert view.base is None
    assert view.flags.owndata  # so CuPy says, and so nobody should ask
    view[0, 0] = -1.0
    assert float(a[1, 1]) == -1
    bits = xp.ndarray((24,), np.uint32, a.data)
    assert bits.view(np.float32).tolist() == a.ravel().tolist()
    backwards = xp.ndarray((6,), np.float32, a.data + 20, (-4,))
    assert backwards.tolist() == [5, 4, 3, 2, 1, 0]
    assert view.data.ptr - a.data.ptr == 28
    assert view.data.mem == a.data.mem
    assert (view.data - 28).ptr == a.data.ptr == int(a.data)
    assert a[1:].data == a.data + 24
    assert hash(a.data.mem) == hash(view.data.mem)
    assert xp.zeros(2).data.mem != a.data.mem
    assert a.data.mem.size == 96
    turned = xp.asarray(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert xp.ndarray((6,), float, turned.data).tolist() == [0, 3, 1, 4, 2, 5]
    permuted = xp.copy(xp.asarray(np.arange(24.0).reshape(2, 3, 4)).transpose(1, 0, 2))
    assert xp.ndarray((24,), float, permuted.data).tolist() == list(range(24))
    assert xp.ndarray((0, 3), float, a[4:].data, (8, 8)).shape == (0, 3)
    cast = xp.asarray([1 + 2j, 3 + 4j])
    assert xp.ndarray((2,), float, cast.data + 8, (16,)).tolist() == [2, 4]


def test_views_stay_inside() -> None:
    a = xp.zeros(4)
    for arguments in (((5,), float, a.data), ((4,), float, a.data + 8), ((2,), float, a.data, (-8,))):
        with pytest.raises((ValueError, TypeError)):
            xp.ndarray(*arguments)
    with pytest.raises(TypeError, match="int of bytes"):
        a.data + 1.5
    with pytest.raises(TypeError, match="memptr"):
        xp.ndarray((2,), float, a)
    with pytest.raises(ValueError, match=r"buffer|strides"):
        xp.lib.stride_tricks.as_strided(a, (5,), (8,))


def test_bases() -> None:
    a = xp.asarray(np.arange(12.0).reshape(3, 4))
    for view in (
        a[1:],
        a[0, 0],
        a.T,
        a.reshape(4, 3),
        a[1:][:, ::2],
        a.ravel(),
        a.view(np.int64),
        xp.split(a, 3)[1],
        xp.expand_dims(a, 0),
        xp.broadcast_to(a, (2, 3, 4)),
        xp.diagonal(a),
        xp.moveaxis(a, 0, 1),
        xp.squeeze(a[:1]),
        xp.flip(a),
        a.swapaxes(0, 1),
        xp.einsum("ij->ji", a),
        xp.broadcast_arrays(a, a[0])[1],
    ):
        assert view.base is a
        assert not view.flags.owndata
        assert xp.shares_memory(view, a)
    c = xp.zeros(2, np.complex128)
    assert c.real.base is c
    assert c.imag.base is c
    for own in (a + 1, a.T.reshape(-1), a.copy(), a[xp.asarray([0])], a[a > 0], a.flatten(), xp.concatenate((a, a))):
        assert own.base is None
        assert own.flags.owndata
        assert not xp.may_share_memory(own, a)
    # What is not copied is the very same array.
    for same in (a.astype(np.float64, copy=False), xp.asarray(a), a.conj(), xp.ascontiguousarray(a)):
        assert same is a
    assert a[0].T.base is a
    assert a.real is a
    assert a.squeeze() is a


def test_diagonal_can_be_written_and_diag_not() -> None:
    a = xp.zeros((2, 2))
    a.diagonal().fill(3.0)
    xp.diag(a)[...] = 9.0
    assert a.tolist() == [[3, 0], [0, 3]]


def test_flags_and_shapes() -> None:
    a = xp.zeros((2, 3))
    assert a.flags.c_contiguous
    assert a.flags["C_CONTIGUOUS"]
    assert a.T.flags.fnc
    assert a.T.flags["F_CONTIGUOUS"]
    assert a.flags.forc
    assert a[0].flags["OWNDATA"] is False
    for name in ("WRITEABLE", "ALIGNED"):
        with pytest.raises(KeyError):
            a.flags[name]
    assert not hasattr(a.flags, "writeable")
    b = a.view()
    b.shape = (3, 2)
    assert b.shape == (3, 2)
    transposed = a.T
    with pytest.raises(AttributeError, match="Incompatible shape"):
        transposed.shape = (6,)
    assert a.reshape(6, copy=True).base is None
    with pytest.raises(ValueError, match="avoid creating a copy"):
        a.T.reshape(6, copy=False)


def test_fresh_memory_is_poisoned() -> None:
    assert xp.isnan(xp.empty((2, 2))).all()
    assert xp.isnan(xp.empty_like(xp.zeros(2, np.complex64))).all()
    assert xp.isnan(xp.ndarray((3,))).all()
    assert (xp.empty(2, np.int32) != 0).all()
    assert xp.empty(2, bool).all()


def test_like_functions_and_empty_shapes() -> None:
    a = xp.zeros((2, 3))
    assert xp.ones_like(a, shape=(4,)).shape == (4,)
    for make in (xp.empty_like, xp.zeros_like, xp.ones_like):
        with pytest.raises(ValueError, match="ignores the shape"):
            make(a, shape=())
    with pytest.raises(TypeError, match="subok"):
        xp.zeros_like(a, subok=True)
    assert xp.ascontiguousarray(xp.asarray(1.0)).shape == (1,)
    assert xp.argsort(xp.asarray(1.0)).shape == (1,)


def test_writing_functions() -> None:
    a, mask = xp.zeros((2, 2)), xp.asarray([[True, False], [False, True]])
    xp.copyto(a, 2.0, where=mask)
    assert a.tolist() == [[2, 0], [0, 2]]
    with pytest.raises(TypeError):
        xp.copyto(xp.zeros(2, np.int32), xp.ones(2))
    xp.fill_diagonal(a, 5)
    assert a.tolist() == [[5, 0], [0, 5]]
    xp.place(a, mask, xp.asarray([1.0, 2.0]))
    assert a.tolist() == [[1, 0], [0, 2]]
    xp.putmask(a, mask, 7.0)
    assert a.tolist() == [[7, 0], [0, 7]]
    with pytest.raises(TypeError, match="safe"):
        xp.putmask(xp.zeros(2, np.int32), xp.asarray([True, True]), xp.ones(2))
    a.real = 1.0
    assert a.tolist() == [[1, 1], [1, 1]]
    c = xp.zeros(2, np.complex64)
    c.imag = xp.asarray([1.0, 2.0])
    assert c.tolist() == [1j, 2j]
    with pytest.raises(TypeError, match="imaginary"):
        a.imag = 1.0


def test_order() -> None:
    a = xp.asarray([[3.0, 1.0], [2.0, np.nan]])
    with pytest.raises(ValueError, match="stable"):
        xp.sort(a, kind="quicksort")
    with pytest.raises(ValueError, match="stable"):
        a.argsort(kind="heapsort")
    assert xp.argsort(xp.asarray([1, 1, 0]), kind="stable").tolist() == [2, 0, 1]
    with pytest.raises(NotImplementedError, match="non-contiguous"):
        a.T.sort()
    with pytest.raises(np.exceptions.AxisError):
        xp.asarray(1.0).sort()
    b = a.copy()
    b.sort(axis=0)
    assert b.tolist()[0] == [2, 1]
    b.partition(0)
    assert b[0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="out of bounds"):
        xp.partition(a, 2)
    with pytest.raises(TypeError):
        xp.lexsort((a[0], a[1]))


@pytest.mark.parametrize(
    "expression, error",
    [
        ("xp.nonzero(a[0, 0])", ValueError),
        ("xp.inner(a[:, :0], a[:, :0])", ZeroDivisionError),
        ("xp.quantile(a, 0.5, method='weibull')", ValueError),
        ("xp.interp(p[:, 0], p[0], p[0])", NotImplementedError),
        ("xp.trim_zeros(a)", NotImplementedError),
        ("xp.bincount(a[0])", TypeError),
        ("xp.packbits(m, axis=0)", NotImplementedError),
        ("xp.argmax(a, dtype=np.int8)", NotImplementedError),
        ("xp.histogram(a, bins='auto')", NotImplementedError),
        ("xp.histogram(c)", NotImplementedError),
        ("xp.meshgrid(a, v)", ValueError),
        ("xp.lexsort(t)", NotImplementedError),
        ("xp.pad(a, 1, mode=sum)", TypeError),
        ("xp.concatenate((a[0, 0], a[0, 1]))", (TypeError, ValueError)),
        ("xp.matmul(a[0, 0], a)", ValueError),
        ("xp.dot(p, p, out=xp.zeros((3, 3)).T)", ValueError),
        ("xp.where(m, a)", ValueError),
        ("xp.take(a, a)", IndexError),
        ("xp.einsum(a, [0, 1])", TypeError),
        ("xp.lib.stride_tricks.sliding_window_view(v, 2, writeable=True)", NotImplementedError),
        ("iter(a[0, 0])", TypeError),
        ("len(a[0, 0])", TypeError),
    ],
)
def test_refusals_of_single_functions(expression: str, error: Any) -> None:
    with pytest.raises(error):
        run(expression, xp, sp, on_device(hosts()))
