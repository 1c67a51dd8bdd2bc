"""The checksum in pieces is zlib's."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest

from engine.durability import checksums


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 63, 64, 65, 1000, 65_537])
def test_two_texts_in_a_row(length: int) -> None:
    first, second = random.Random(length).randbytes(100), random.Random(-length - 1).randbytes(length)
    assert checksums.joined(zlib.crc32(first), zlib.crc32(second), length) == zlib.crc32(first + second)


@pytest.mark.parametrize("ways", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 9, 20, 21, 999, 1000, 1001])
def test_it_is_zlibs_in_however_many_pieces(monkeypatch: pytest.MonkeyPatch, ways: int, size: int) -> None:
    checksums._pool.cache_clear()
    monkeypatch.setattr(checksums, "_WAYS", ways)
    monkeypatch.setattr(checksums, "_FROM", 10)
    data = random.Random(size).randbytes(size)
    for before in (0, 0x12345678):
        for given in (data, memoryview(data), np.frombuffer(data, np.uint8)):
            assert checksums.crc32(given, before) == zlib.crc32(data, before)
    if ways > 1:
        checksums._pool().shutdown()
        checksums._pool.cache_clear()
