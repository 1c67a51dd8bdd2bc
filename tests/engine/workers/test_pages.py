"""Memory of big answers that comes back and is filled again: never before everything that reads it has let go."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.tensor import Lendable, lendable
from engine.workers import frames, pages
from engine.workers.frames import Wire, comes_back, parcel
from engine.workers.messages import PROTOCOL, BadMessage, Closed
from engine.workers.pages import REUSED_FROM, UPLOADS, Given, Pages, Shared
from tests.engine.workers.fakes import process_facts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors and mappings in /proc")

SIZE = REUSED_FROM // 8


class Ends:
    """A worker's end and a front's, with a front that says at once what it lets go."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.front, self.worker = Wire(ours, keeps=False), Wire(theirs, keeps=True)
        self.front.let_go = self._let_go
        assert self.worker.pages is not None
        self.pages = self.worker.pages

    def _let_go(self, number: int) -> None:
        with contextlib.suppress(Closed):
            self.front.post(comes_back(number))

    def answer(self, *arrays: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """What the front gets of the arrays that the worker sends."""
        message = {"a": [ArrayData(array, array.dtype.name) for array in arrays]}
        assert self.worker.post(parcel(*self.worker.pack(message), pages=self.pages))
        (got,) = self.front.receive()
        return [one.array for one in got["a"]]

    def upload(self, size: int = SIZE) -> np.ndarray[Any, Any]:
        """What the worker gets of an array that a front has received."""
        body = pages.Shared(128 + size * 8)
        body.write(bytes(128))
        body.write(np.arange(size, dtype=np.float64).tobytes())
        came = np.frombuffer(body.finish(), np.float64, size, 128)
        assert self.front.post(parcel(*self.front.pack({"a": ArrayData(came, "float64")})))
        (got,) = self.worker.receive()
        array: np.ndarray[Any, Any] = got["a"].array
        return array

    def hear(self) -> None:
        """The worker reads what the front has said."""
        while select.select([self.worker], [], [], 0)[0]:
            assert self.worker.receive() == []

    def files(self) -> set[int]:
        """The files that the worker holds, by inode."""
        held = [fd for fd, _ in self.pages._out.values()] + [fd for *_, fd in self.pages._kept]
        return {os.fstat(fd).st_ino for fd in held}


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Nothing may be left open or mapped at the end."""
    gc.collect()
    before = process_facts()
    made = Ends()
    yield made
    made.front.close()
    made.worker.close()
    gc.collect()
    after = process_facts()
    assert (after["fds"], after["maps"]) == (before["fds"], before["maps"])


def test_memory_that_was_let_go_is_filled_again(ends: Ends) -> None:
    seen = set()
    for i in range(5):
        (got,) = ends.answer(np.full(SIZE, i, np.float64))
        assert (got == i).all()
        del got
        ends.hear()
        seen |= ends.files()
    assert len(seen) == 1
    assert ends.pages.kept_bytes == SIZE * 8


def test_memory_that_is_still_read_is_left_alone(ends: Ends) -> None:
    (first,) = ends.answer(np.full(SIZE, 1.0))
    view = memoryview(first)[10:20]  # what a socket has not taken yet
    del first
    ends.hear()
    (second,) = ends.answer(np.full(SIZE, 2.0))
    assert list(view) == [1.0] * 10
    assert (second == 2.0).all()
    assert len(ends.files()) == 2
    del view
    ends.hear()
    (third,) = ends.answer(np.full(SIZE, 3.0))
    assert (second == 2.0).all()
    assert (third == 3.0).all()
    assert len(ends.files()) == 2


def test_readers_that_let_go_in_any_order_never_see_another_answer(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "REUSED_FROM", 80_000)
    rng = random.Random(0)
    held: list[tuple[float, np.ndarray[Any, Any]]] = []
    for i in range(200):
        count = 10_000 + rng.randrange(5000)
        for got in ends.answer(*(np.full(count, float(i)) for _ in range(rng.randrange(1, 3)))):
            assert got.size == count
            held.append((float(i), got))
        del got
        rng.shuffle(held)
        del held[rng.randrange(1, 6) :]
        ends.hear()
        for value, array in held:
            assert (array == value).all()
    assert len(ends.pages._out) == len(held)


def test_a_file_is_used_for_what_nearly_fills_it_and_for_nothing_smaller(ends: Ends) -> None:
    ends.answer(np.zeros(SIZE * 2))
    ends.hear()
    (a,) = ends.answer(np.full(SIZE * 2 - 1000, 7.0))
    assert ends.pages.kept_bytes == 0
    (b,) = ends.answer(np.full(SIZE, 8.0))
    assert len(ends.files()) == 2
    assert a.sum() == 7.0 * a.size
    assert b.sum() == 8.0 * b.size


def test_small_arrays_are_not_kept(ends: Ends) -> None:
    ends.answer(np.zeros(SIZE - 1), np.zeros(SIZE // 2))
    ends.hear()
    assert not ends.files()


def test_what_is_kept_has_a_bound_and_an_end(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "KEPT_BYTES", SIZE * 8 * 3)
    now = 100.0
    monkeypatch.setattr(pages.time, "monotonic", lambda: now)
    got = ends.answer(*(np.full(SIZE, float(i)) for i in range(5)))
    del got
    ends.hear()
    assert ends.pages.kept_bytes == SIZE * 8 * 3
    assert len(ends.files()) == 3
    assert ends.pages.expire() == pages.KEPT_SECONDS
    now += pages.KEPT_SECONDS / 2
    (again,) = ends.answer(np.zeros(SIZE))
    del again
    ends.hear()
    now += pages.KEPT_SECONDS / 2
    assert ends.pages.expire() == pages.KEPT_SECONDS / 2
    assert ends.pages.kept_bytes == SIZE * 8
    now += pages.KEPT_SECONDS / 2
    assert ends.pages.expire() is None
    assert not ends.files()


def test_a_machine_without_room_gets_back_what_is_kept(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.answer(np.zeros(SIZE))
    ends.hear()
    fill, refused = pages.fill, []

    def full(fd: int, blob: Any, offset: int) -> None:
        if ends.pages.kept_bytes:
            refused.append(fd)
            raise OSError(errno.ENOSPC, "no space")
        fill(fd, blob, offset)

    monkeypatch.setattr(pages, "fill", full)
    (got,) = ends.answer(np.ones(SIZE * 3))
    assert got.all()
    assert len(refused) == 1


def test_an_answer_that_fails_halfway_keeps_nothing_out(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = pages.create, []

    def second_fails() -> int:
        if made:
            raise OSError(errno.EMFILE, "too many open files")
        made.append(True)
        return real()

    monkeypatch.setattr(pages, "create", second_fails)
    message = {"a": [ArrayData(np.full(SIZE, 1.0 + i), "float64") for i in range(2)]}
    item = parcel(*ends.worker.pack(message), pages=ends.pages)
    assert not item.descriptors  # bytes follow instead
    assert not ends.pages._out
    item.close()


def test_what_could_not_be_received_comes_back(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOMEM, "too many mappings")

    with monkeypatch.context() as patch:
        patch.setattr(pages, "Mapping", refused)
        (got,) = ends.answer(np.full(SIZE, 4.0))
    ends.hear()
    assert not ends.pages._out
    assert (got == 4.0).all()


def test_a_worker_frees_what_is_out_when_its_front_is_gone(ends: Ends) -> None:
    (got,) = ends.answer(np.full(SIZE, 5.0))
    ends.worker.close()
    assert not ends.files()
    assert (got == 5.0).all()


@pytest.mark.parametrize("numbers", [[7], [1, 1], [0]])
def test_memory_that_is_not_out_cannot_come_back(ends: Ends, numbers: list[int]) -> None:
    (got,) = ends.answer(np.zeros(SIZE))
    body = struct.pack(f"<{len(numbers)}I", *numbers)
    with socket.socket(fileno=os.dup(ends.front.fileno())) as sock:
        sock.sendall(struct.pack("<4sIIIQ", bytes((*b"cg", PROTOCOL, 2)), len(body), 0, 0, 0) + body)
    with pytest.raises(BadMessage, match="not passed on"):
        ends.worker.receive()
    assert got.size == SIZE


def test_a_front_is_given_back_nothing(ends: Ends) -> None:
    with socket.socket(fileno=os.dup(ends.worker.fileno())) as sock:
        sock.sendall(struct.pack("<4sIIIQI", bytes((*b"cg", PROTOCOL, 2)), 4, 0, 0, 0, 1))
    with pytest.raises(BadMessage, match="not passed on"):
        ends.front.receive()


def test_numbers_begin_anew_after_the_last() -> None:
    files = Pages()
    files._last = 0xFFFF_FFFE
    sent = [files.send(np.zeros(10, np.uint8)) for _ in range(2)]
    assert [number for number, _ in sent] == [0xFFFF_FFFF, 1]
    for _, fd in sent:
        os.close(fd)
    files.close()


def test_several_threads_send_while_files_come_back() -> None:
    pages, blob = Pages(), np.ones(REUSED_FROM, np.uint8)
    numbers: list[int] = []

    def send() -> None:
        for _ in range(50):
            number, fd = pages.send(blob)
            os.close(fd)
            numbers.append(number)
            pages.back(number)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(send) for _ in range(4)]:
            done.result()
    assert len(set(numbers)) == 200
    assert pages.kept_bytes == sum(size for _, size, _ in pages._kept)
    assert not pages._out
    pages.close()
    _, fd = pages.send(blob)  # a copy that ends when its front has gone
    os.close(fd)
    assert not pages._out


# ---------------------------------------------------------------- memory that is lent


def test_what_came_in_goes_out_as_it_lies(ends: Ends) -> None:
    tensor = ends.upload()
    memory = lendable(tensor)
    assert memory is not None
    (first,), (second,) = ends.answer(tensor), ends.answer(tensor)
    assert np.array_equal(first, tensor)
    assert not first.flags.writeable
    assert (memory.readers, Lendable.out) == (2, 2)
    tensor[5] = 2.5  # no engine would, as long as somebody reads it: here it shows that nothing was copied
    assert first[5] == second[5] == 2.5
    assert ends.files() == set()
    del first
    ends.hear()
    assert (memory.readers, Lendable.out) == (1, 1)
    del second
    ends.hear()
    assert (memory.readers, Lendable.out) == (0, 0)


def test_what_is_lent_outlives_the_tensor(ends: Ends) -> None:
    tensor = ends.upload()
    (read,) = ends.answer(tensor)
    del tensor
    gc.collect()
    assert np.array_equal(read, np.arange(SIZE))
    assert process_facts()["maps"] == 2, "the worker keeps it until it hears that nobody reads it"
    del read
    ends.hear()
    gc.collect()
    assert process_facts()["maps"] == 0


def test_a_front_that_is_gone_reads_no_more(ends: Ends) -> None:
    tensor = ends.upload()
    (read,) = ends.answer(tensor)
    ends.worker.close()
    assert Lendable.out == 0
    assert np.array_equal(read, tensor), "what it has mapped stays"


def test_what_is_small_part_of_a_file_or_not_open_is_copied(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    small, whole = ends.upload(SIZE // 2), ends.upload()
    monkeypatch.setattr(pages, "_MOST_OPEN", 0)
    closed = ends.upload()
    for tensor in (small, whole[: SIZE // 2], closed):
        (read,) = ends.answer(tensor)
        assert Lendable.out == 0
        tensor[0] = 7
        assert read[0] == 0


def test_an_answer_that_fails_lends_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    tensor = ends.upload()
    monkeypatch.setattr(pages, "fill", full)
    both = {"a": [ArrayData(array, "float64") for array in (tensor, tensor + 1)]}
    with pytest.raises(MemoryError):
        parcel(*ends.worker.pack(both), pages=ends.pages)
    assert Lendable.out == 0


# ---------------------------------------------------------------- memory of what came in, that comes back


class Town(Ends):
    """The same with a front whose uploads come back."""

    def __init__(self) -> None:
        super().__init__()
        self.given = self.front.pages = Given()
        self.returned: list[int] = []
        self.worker.let_go = self.returned.append

    def passed(self, body: Shared) -> np.ndarray[Any, Any]:
        """What the worker gets of a body; nothing of it stays in the front."""
        came = np.frombuffer(body.finish(), np.float64, -1, 128)
        item = parcel(*self.front.pack({"a": ArrayData(came, "float64")}), pages=self.given)
        assert self.front.post(item)
        (got,) = self.worker.receive()
        array: np.ndarray[Any, Any] = got["a"].array
        return array

    def tell(self) -> None:
        """The worker says what it let go, and the front hears it."""
        gc.collect()
        while self.returned:
            self.worker.post(comes_back(self.returned.pop()))
        while select.select([self.front], [], [], 0)[0]:
            assert self.front.receive() == []


def body(value: float, size: int = SIZE) -> Shared:
    made = Shared(128 + size * 8)
    made.write(bytes(128))
    made.write(np.full(size, value).tobytes())
    return made


@pytest.fixture
def town() -> Iterator[Town]:
    gc.collect()
    before = process_facts()
    made = Town()
    yield made
    made.front.close()
    made.worker.close()
    gc.collect()
    after = process_facts()
    assert (after["fds"], after["maps"], UPLOADS.kept_bytes) == (before["fds"], before["maps"], 0)


def inode(body: Shared) -> int:
    return os.fstat(body._fd).st_ino


def test_what_tensors_stood_on_is_filled_again(town: Town) -> None:
    first = body(1.0)
    file = inode(first)
    tensor = town.passed(first)
    del first
    other = body(2.0)
    assert inode(other) != file
    kept = town.passed(other)
    view = tensor[10:20]
    del tensor, other
    town.tell()
    assert UPLOADS.kept_bytes == 0, "a view is enough to stand on"
    del view
    town.tell()
    assert UPLOADS.kept_bytes == 128 + SIZE * 8
    third = body(3.0)
    assert inode(third) == file
    tensor = town.passed(third)
    del third
    assert (tensor == 3.0).all()
    tensor[0] = 4.0  # the worker's to write to
    assert (kept == 2.0).all()


def test_what_a_front_still_reads_is_not_filled_again(town: Town) -> None:
    made = body(1.0)
    held = made.finish()
    came = np.frombuffer(held, np.float64, -1, 128)
    assert town.front.post(parcel(*town.front.pack({"a": ArrayData(came, "float64")}), pages=town.given))
    assert town.worker.receive()
    town.tell()
    assert UPLOADS.kept_bytes == 0
    assert (came == 1.0).all()


def test_what_is_being_downloaded_is_not_filled_again(town: Town) -> None:
    tensor = town.passed(body(1.0))
    (read,) = town.answer(tensor)
    del tensor
    town.tell()
    town.hear()
    assert UPLOADS.kept_bytes == 0
    assert (read == 1.0).all()
    del read
    town.hear()
    town.tell()
    assert UPLOADS.kept_bytes == 128 + SIZE * 8


def test_another_length_has_another_file(town: Town) -> None:
    for size in (SIZE, SIZE * 2):
        tensor = town.passed(body(1.0, size))
        del tensor
        town.tell()
    for size in (SIZE + 10, SIZE // 2, SIZE * 3 // 2):
        assert inode(body(2.0, size))
        assert UPLOADS.kept_bytes == 2 * 128 + SIZE * 24
    tensor = town.passed(body(5.0, SIZE - 100))
    assert UPLOADS.kept_bytes == 128 + SIZE * 16
    assert len(tensor) == SIZE - 100
    assert (tensor == 5.0).all()
    (read,) = town.answer(tensor)
    assert (read == 5.0).all()
    assert Lendable.out == 1, "though its file is a little longer"


def test_so_many_files_are_held_and_no_more(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Given, "MOST", 2)
    tensors = [town.passed(body(float(i))) for i in range(3)]
    tensors.clear()
    town.tell()
    assert UPLOADS.kept_bytes == 2 * (128 + SIZE * 8)


def test_what_waits_to_be_filled_is_freed_in_time(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(pages.time, "monotonic", lambda: now)
    tensor = town.passed(body(1.0))
    del tensor
    town.tell()
    assert UPLOADS.expire() == pages.KEPT_SECONDS
    now += pages.KEPT_SECONDS
    assert UPLOADS.expire() is None
    assert UPLOADS.kept_bytes == 0


def test_what_was_not_given_cannot_come_back(town: Town) -> None:
    tensor = town.passed(body(1.0))
    town.worker.post(comes_back(7))
    with pytest.raises(BadMessage, match="comes back"):
        town.front.receive()
    assert (tensor == 1.0).all()


def test_a_body_that_is_broken_off_frees_what_it_was_filling(town: Town) -> None:
    tensor = town.passed(body(1.0))
    del tensor
    town.tell()
    begun = Shared(128 + SIZE * 8)
    begun.write(bytes(1000))
    assert UPLOADS.kept_bytes == 0
    del begun


def test_a_machine_without_room_for_a_body_gets_back_what_is_kept(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = town.passed(body(1.0))
    del tensor
    town.tell()
    real = os.pwrite

    def tight(*args: Any) -> int:
        if UPLOADS.kept_bytes or args[2] > SIZE * 16:
            raise OSError(errno.ENOSPC, "no room")
        return real(*args)

    monkeypatch.setattr(pages.os, "pwrite", tight)
    larger = body(2.0, SIZE * 2)
    assert UPLOADS.kept_bytes == 0
    larger = Shared(SIZE * 32)
    larger.filled = SIZE * 20
    with pytest.raises(MemoryError):
        larger.write(b"more")
