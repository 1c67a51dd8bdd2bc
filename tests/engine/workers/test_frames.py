"""Frames on a real socket pair: descriptors, memory, back-pressure, and peers that lie."""

from __future__ import annotations

import array
import errno
import gc
import os
import random
import resource
import select
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.workers import frames, pages
from engine.workers.frames import MAX_DESCRIPTORS, Wire, parcel
from engine.workers.messages import BadMessage, Closed, Codec
from tests.engine.workers.fakes import process_facts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors and mappings in /proc")

BIG = 100_000


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    """A front's end and a worker's end. Nothing may be left open or mapped at the end."""
    gc.collect()
    before = process_facts()
    ours, theirs = socket.socketpair()
    front, worker = Wire(ours, keeps=False), Wire(theirs, keeps=True)
    yield front, worker
    front.close()
    worker.close()
    after = process_facts()
    assert (after["fds"], after["maps"]) == (before["fds"], before["maps"])


def post(wire: Wire, message: dict[str, Any]) -> bool:
    return wire.post(parcel(*wire.pack(message)))


def receive(wire: Wire, sender: Wire | None = None) -> dict[str, Any]:
    """The next message, which comes alone; `sender` is flushed meanwhile."""
    for _ in range(10_000):
        select.select([wire], [], [], 1)
        found = wire.receive()
        if found:
            assert len(found) == 1
            return found[0]
        if sender is not None:
            sender.flush()
    raise AssertionError("no message came")


def big(i: int = 0, size: int = BIG) -> ArrayData:
    return ArrayData(np.full(size, i, np.float64), "float64")


def test_small_messages_many_at_once(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    for i in range(50):
        assert front.post_body(front.pack({"id": i})[0])
    assert worker.receive() == [{"id": i} for i in range(50)]
    assert worker.receive() == []


def test_big_arrays_are_mapped_not_read(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    sent = np.random.default_rng(0).standard_normal((200, 500))
    assert post(front, {"a": ArrayData(sent, "float64"), "b": ArrayData(sent.astype(np.float32), "float32")})
    fds = process_facts()["fds"]
    got = receive(worker)
    assert process_facts()["fds"] == fds, "descriptors are closed as soon as they are mapped"
    assert process_facts()["maps"] == 2
    assert np.array_equal(got["a"].array, sent)
    got["a"].array[0, 0] = 5.0  # the worker's to keep
    assert sent[0, 0] != 5.0
    del got["a"]
    assert process_facts()["maps"] == 1, "each array's memory goes with it"
    del got
    assert process_facts()["maps"] == 0


def test_the_front_gets_read_only_arrays(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    post(worker, {"big": big(1), "small": big(2, 3)})
    got = receive(front)
    for name in ("big", "small"):
        with pytest.raises(ValueError, match="read-only"):
            got[name].array[0] = 1.0


def test_the_sender_may_change_an_array_once_it_is_posted(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    data = big(1)
    post(worker, {"a": data})
    data.array[:] = 2.0
    assert receive(front)["a"].array.max() == 1.0


@pytest.mark.parametrize("count", [MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 300])
def test_more_arrays_than_descriptors(wires: tuple[Wire, Wire], count: int) -> None:
    front, worker = wires
    message = {"arrays": [big(i, 9000 + i) for i in range(count)]}
    for sender, receiver in ((front, worker), (worker, front)):
        post(sender, message)
        got = receive(receiver)["arrays"]
        assert all(np.array_equal(a.array, b.array) for a, b in zip(got, message["arrays"], strict=True))
        assert process_facts()["maps"] <= MAX_DESCRIPTORS
        if receiver is worker and count > MAX_DESCRIPTORS:
            shared = process_facts()["maps"]
            assert shared <= count % MAX_DESCRIPTORS, "arrays that shared a descriptor were copied out of it"
        del got


def test_a_frame_in_pieces(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    body, _ = front.pack({"id": 1, "text": "x" * 300})
    raw = b"".join(parcel(body).pieces) * 3
    with socket.socket(fileno=os.dup(front.fileno())) as sock:
        for i in range(len(raw)):
            sock.send(raw[i : i + 1])
            found = worker.receive()
            assert bool(found) == ((i + 1) % (len(raw) // 3) == 0)


def test_a_body_beyond_every_buffer_and_a_slow_reader(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    text = "".join(chr(97 + i % 26) for i in range(3_000_000))
    assert not post(front, {"id": 1, "text": text})
    assert not post(front, {"id": 2, "a": big(7)})
    assert not post(front, {"id": 3})
    assert front.waiting > 2_000_000
    assert front.unsent() == {0}
    found: list[dict[str, Any]] = []
    while len(found) < 3:
        front.flush()
        found += worker.receive()
    assert found[0]["text"] == text
    assert found[1]["a"].array[5] == 7.0
    assert found[2] == {"id": 3}
    assert front.waiting == 0
    assert front.unsent() == set()


def test_unsent_frames_are_known_and_their_descriptors_closed(wires: tuple[Wire, Wire]) -> None:
    front, _ = wires
    front.post(parcel(front.pack({"text": "x" * 3_000_000})[0], (), 1))
    for tag in (2, 3):
        front.post(parcel(*front.pack({"a": big()}), tag))
    front.post_body(front.pack({})[0], 4)
    assert front.unsent() == {2, 3, 4}


def test_closed_is_said(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    post(front, {"id": 1})
    front.close()
    assert worker.receive() == [{"id": 1}]
    with pytest.raises(Closed):
        worker.receive()
    with pytest.raises(Closed):
        worker.post_body(b"\x80")
    with pytest.raises(Closed):
        post(worker, {"a": big()})


def test_bytes_follow_where_no_descriptor_can_be_made(
    wires: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    front, worker = wires

    def full() -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(frames, "create", full)
    for sender, receiver in ((front, worker), (worker, front)):
        message = {"arrays": [big(1), big(2, 20_000)], "b": ArrayData(np.ones(BIG, bool), "bool")}
        post(sender, message)
        got = receive(receiver, sender)
        assert [a.array.mean() for a in got["arrays"]] == [1.0, 2.0]
        assert got["b"].array.all()
        assert got["b"].array.flags.writeable == (receiver is worker)
        assert process_facts()["maps"] == 0


def test_no_memory_for_the_copy_is_a_memory_error(wires: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, blob: object, offset: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(frames, "fill", full)
    monkeypatch.setattr(pages, "fill", full)
    with pytest.raises(MemoryError):
        post(wires[0], {"a": big(), "b": big()})


def test_arrays_that_cannot_be_received_are_lost_and_the_stream_goes_on(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    post(front, {"id": 1, "a": [big(1), big(2), big(3)]})
    post(front, {"id": 2, "a": [big(4)]})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    occupied = os.open("/dev/null", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (occupied + 1, hard))
    try:
        first = receive(worker)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(occupied)
    assert (first["id"], first["lost"]) == (1, True)
    second = receive(worker)
    assert "lost" not in second
    assert second["a"][0].array[0] == 4.0


def test_arrays_are_read_where_they_cannot_be_mapped(wires: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOMEM, "too many mappings")

    front, worker = wires
    monkeypatch.setattr(pages, "Mapping", refused)
    post(front, {"a": big(3)})
    got = receive(worker)["a"].array
    assert got.mean() == 3.0
    assert got.flags.writeable


# ---------------------------------------------------------------- peers that lie


def lie(wire: Wire, data: bytes, fds: list[int] | None = None) -> None:
    """Sends raw bytes past the wire."""
    with socket.socket(fileno=os.dup(wire.fileno())) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], rights)


def header(body: int, blobs: int = 0, descriptors: int = 0, after: int = 0, start: bytes = b"cg\x01\x00") -> bytes:
    return struct.pack("<4sIIIQ", start, body, blobs, descriptors, after)


def memfd(size: int, *, seal: bool = True) -> int:
    fd = os.memfd_create("lie", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seal:
        pages.seal(fd)
    return fd


LIES = {
    "another protocol": header(1, start=b"cg\x02\x00") + b"\x80",
    "unknown flags": header(1, start=b"cg\x01\x02") + b"\x80",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body beyond every limit": header(0xFFFFFFFF),
    "blobs beyond every limit": header(1, blobs=0xFFFFFFFF, descriptors=1),
    "descriptors beyond every limit": header(1, descriptors=65),
    "blobs without a descriptor": header(1, blobs=1) + bytes(24) + b"\x80",
    "descriptors that do not come": header(1, descriptors=1) + b"\x80",
    "a body that is no message": header(1) + b"\xc1",
    "a blob beyond its frame": header(1, 1, 0, 4, b"cg\x01\x01") + struct.pack("<IIQQ", 0, 0, 2, 3) + b"\x80abcd",
    "a blob at the end of the world": header(1, 1, 0, 4, b"cg\x01\x01")
    + struct.pack("<IIQQ", 0, 0, 2**64 - 1, 2)
    + b"\x80abcd",
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in LIES.items()])
def test_lies_are_bad_messages(wires: tuple[Wire, Wire], data: bytes) -> None:
    front, worker = wires
    lie(front, data)
    with pytest.raises(BadMessage):
        worker.receive()


@pytest.mark.parametrize(
    "row, files",
    [
        pytest.param((1, 0, 0, 10), [4096], id="a descriptor that is not there"),
        pytest.param((0, 0, 4090, 10), [4096], id="beyond the end"),
        pytest.param((0, 0, 2**64 - 5, 10), [4096], id="an offset that overflows"),
        pytest.param((0, 0, 0, 10), [0], id="an empty file"),
        pytest.param((0, 0, 0, 10), [4096, 4096], id="more descriptors than were announced"),
    ],
)
def test_lies_about_descriptors(wires: tuple[Wire, Wire], row: tuple[int, ...], files: list[int]) -> None:
    front, worker = wires
    fds = [memfd(size) for size in files]
    try:
        lie(front, header(1, 1, 1) + struct.pack("<IIQQ", *row) + b"\x80", fds)
    finally:
        for fd in fds:
            os.close(fd)
    with pytest.raises(BadMessage):
        worker.receive()


def test_a_file_that_can_still_shrink_is_refused(wires: tuple[Wire, Wire]) -> None:
    """Mapped and then cut short, it would kill whoever reads it with SIGBUS."""
    front, worker = wires
    fd = memfd(4096, seal=False)
    lie(front, header(1, 1, 1) + struct.pack("<IIQQ", 0, 0, 0, 10) + b"\x80", [fd])
    os.close(fd)
    with pytest.raises(BadMessage, match="sealed"):
        worker.receive()


def test_what_came_before_a_lie_is_not_lost(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    front.post_body(front.pack({"id": 1})[0])
    lie(front, b"GET / HTTP/1.1")
    with pytest.raises(BadMessage) as caught:
        worker.receive()
    assert caught.value.before == [{"id": 1}]


def test_something_that_is_no_file_is_refused(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    read, write = os.pipe()
    lie(front, header(1, 1, 1) + struct.pack("<IIQQ", 0, 0, 0, 10) + b"\x80", [read])
    os.close(read)
    os.close(write)
    with pytest.raises(BadMessage):
        worker.receive()


def test_descriptors_nobody_announced_are_refused(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    fd = memfd(4096)
    lie(front, header(1) + b"\x80", [fd])
    os.close(fd)
    with pytest.raises(BadMessage):
        worker.receive()


def test_a_huge_frame_that_never_comes_costs_nothing(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    before = process_facts()["rss"]
    lie(front, header(1 << 30) + b"x" * 1000)
    assert worker.receive() == []
    assert process_facts()["rss"] - before < 10 << 20


def test_damaged_frames_never_crash(wires: tuple[Wire, Wire]) -> None:
    """Every byte of header and table, and a thousand random ones: a message, nothing yet, or one of two errors."""
    body, blobs = Codec().pack({"id": 5, "a": [big(1, 20_000), big(2, 20_000)], "s": "text"})
    whole = b"".join(parcel(body).pieces)[24:]
    rng = random.Random(5)
    table = struct.pack("<IIQQ", 0, 0, 0, 160_000) + struct.pack("<IIQQ", 1, 0, 0, 160_000)
    frame = header(len(body), 2, 2) + table + whole
    outcomes = set()
    for trial in range(400):
        damaged = bytearray(frame)
        damaged[trial if trial < 72 else rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        ours, theirs = socket.socketpair()
        sender, receiver = Wire(ours, keeps=False), Wire(theirs, keeps=True)
        item = parcel(b"", blobs)
        lie(sender, bytes(damaged), item.descriptors)
        item.close()
        try:
            outcomes.add("message" if receiver.receive() else "nothing yet")
        except BadMessage:
            outcomes.add("bad")
        finally:
            sender.close()
            receiver.close()
    assert outcomes == {"message", "nothing yet", "bad"}


def test_too_many_descriptors_under_way_is_tried_again(
    wires: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    front, worker = wires

    class Choked:
        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.left = sock, 2

        def sendmsg(self, *args: Any) -> int:
            self.left -= 1
            if self.left >= 0:
                raise OSError(errno.ETOOMANYREFS, "too many references")
            return self.sock.sendmsg(*args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    monkeypatch.setattr(front, "_sock", Choked(front._sock))
    assert not post(front, {"a": big(4)})
    assert front.choked
    assert not front.flush()
    assert front.flush()
    assert not front.choked
    assert receive(worker)["a"].array[0] == 4.0


# ---------------------------------------------------------------- memory that came in


def filled(data: bytes) -> memoryview:
    memory = pages.Shared(len(data))
    for start in range(0, len(data), 30_000):
        memory.write(data[start : start + 30_000])
    return memory.finish()


def test_what_came_in_is_passed_on_without_a_copy(wires: tuple[Wire, Wire]) -> None:
    front, worker = wires
    data = np.random.default_rng(0).bytes(BIG * 4 + 128)
    memory = filled(data)
    values = np.frombuffer(memory, np.float32, BIG, 128)
    post(front, {"id": 1, "x": ArrayData(values, "float32")})
    got = receive(worker)["x"].array
    assert got.tobytes() == data[128:]
    got[0] = 2.5  # the receiver's to write to, and the same memory
    assert values[0] == 2.5
    del memory, values
    gc.collect()
    assert got[1:].tobytes() == data[132:]


@pytest.mark.parametrize("part", [slice(0, BIG), slice(1, BIG * 4 - 3)])
def test_a_part_of_what_came_in_is_copied(wires: tuple[Wire, Wire], part: slice) -> None:
    """One that would keep much more memory alive than it has, and one that does not lie evenly."""
    front, worker = wires
    whole = np.frombuffer(filled(bytes(range(250)) * (BIG * 4 // 250)), np.uint8)
    post(front, {"id": 1, "x": ArrayData(whole[part], "uint8")})
    got = receive(worker)["x"].array
    assert got.tobytes() == whole[part].tobytes()
    got[0] += 1
    assert got[0] != whole[part][0]


def test_what_comes_in_is_as_long_as_was_said() -> None:
    before = process_facts()["fds"]
    memory = pages.Shared(10)
    memory.write(b"12345")
    with pytest.raises(ValueError, match="fewer"):
        memory.finish()
    with pytest.raises(ValueError, match="more"):
        memory.write(b"678901")
    memory.write(b"67890")
    assert bytes(memory.finish()) == b"1234567890"
    del memory
    gc.collect()
    assert process_facts()["fds"] == before
