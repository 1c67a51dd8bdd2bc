"""zlib.crc32 of much, by several threads at once: it lets go of the interpreter lock, and cores are idle just then.

The checksum of a text is a polynomial over GF(2), modulo CRC-32's. That of two texts in a row is the first one's, times
x to the power of the second one's bits, plus the second one's.
"""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from engine.durability.files import Buffer

_POLYNOMIAL = 0xEDB88320  # x^32 left out; the lowest bit is that of x^31
_ONE, _X = 1 << 31, 1 << 30
_FROM = 4 << 20  # bytes of each piece, at least: what a thread is woken for
_WAYS = min(4, os.cpu_count() or 1)


def crc32(data: Buffer, before: int = 0) -> int:
    """As zlib's."""
    ways = min(_WAYS, len(data) // _FROM)
    if ways < 2:
        return zlib.crc32(data, before)
    view = memoryview(data)
    size = -(-len(view) // ways)
    pieces = [view[start : start + size] for start in range(0, len(view), size)]
    rest = [(_pool().submit(zlib.crc32, piece), len(piece)) for piece in pieces[1:]]
    found = zlib.crc32(pieces[0], before)
    for checking, length in rest:
        found = joined(found, checking.result(), length)
    return found


def joined(first: int, second: int, length: int) -> int:
    """The checksum of two texts in a row, the second of which has `length` bytes."""
    return _times(_power(8 * length), first) ^ second


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_WAYS - 1, thread_name_prefix="curlgrad-crc")


def _times(a: int, b: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        bit >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _power(bits: int) -> int:
    """x to the power of `bits`."""
    found, square = _ONE, _X
    while bits:
        if bits & 1:
            found = _times(square, found)
        square = _times(square, square)
        bits >>= 1
    return found
