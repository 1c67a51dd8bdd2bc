"""Long lists of numbers in a body of JSON: found in the text, cut out of it, and read straight into arrays.

A list of numbers has no quotes, so it lies between two of them, outside of strings; and as long as nobody escapes
anything, every other quote begins a string. Lists of lists are read if they are regular: the same separators between
all rows, as programs write them. What is left alone, for whatever reason, is read by orjson; so is every body in which
something is doubtful.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.wire.json_numbers import BLOCK, LONGEST_SEPARATOR, WORKS, Array, Floats, Integers, Level, Odd, Reader

SHORTEST = 48 * 1024  # bytes of a list; a shorter one is read by orjson faster
_SHORTEST_WIDE = 448 * 1024  # the same of floats in long rows, which orjson and `array` read faster than short ones
_SHORTEST_LONG = 2560 * 1024  # and if they have the digits of a float64
_WIDE = 32  # numbers in a long row
_STEP = SHORTEST // 2
_SAMPLE = 16 * 1024  # bytes that are tried first: a list of other numbers costs no more than that
_DEEPEST = 16
_ROOM = 1024  # bytes that brackets and spaces between two numbers, or around a list, may have
_WHOLE = BLOCK - 2 * _ROOM  # bytes after which a block ends, but for its last separator
_ODD_BLOCKS = 2  # so many are tried in vain, and the rest is left to orjson

_SPACE = rb"[ \t\r\n]*"
_OPENING = re.compile(rb"(?:\[" + _SPACE + rb")+")
_SEPARATOR = re.compile(_SPACE + rb"((?:\]" + _SPACE + rb")*)," + _SPACE + rb"((?:\[" + _SPACE + rb")*)")
_NUMBER = re.compile(rb"[-+0-9.eE]+")
_AFTER_COMMA = re.compile(rb"[ \t\r\n\[]*")
_MANY_DIGITS = re.compile(rb"[0-9]{8}")
_EMPTY = re.compile(rb"\[" + _SPACE + rb"\]")
_AROUND = b" \t\r\n[]{},:"
_DIGITS = b"0123456789"


@dataclass(slots=True)
class LongList:
    """A list that was read to an array, and its text."""

    array: Array
    text: memoryview


def cut(body: bytes) -> tuple[bytes, list[LongList]] | None:
    """The body with `[]` in place of its long lists, and these, in their order; None if it is read as it is.

    An array is float64 or int64, as torch.tensor would infer. Raises nothing: what is wrong in a body is seen by who
    reads the rest.
    """
    if len(body) < SHORTEST or not WORKS or b"\\" in body:
        return None
    lists: list[LongList] = []
    parts: list[bytes] = []
    end = 0
    for start, stop in _gaps(body):
        found = _list_within(body, start, stop)
        if found is not None:
            array, first, last = found
            lists.append(LongList(array, memoryview(body)[first:last]))
            parts += [body[end:first], b"[]"]
            end = last
    if not lists:
        return None
    parts.append(body[end:])
    text = b"".join(parts)
    # Each empty list stands for an array; with others among them it would have to be known which. And a list with
    # "NaN" in it may be one array, of which a row was cut out here.
    doubtful = len(_EMPTY.findall(text)) != len(lists) or b'"NaN"' in text or b'Infinity"' in text
    return None if doubtful else (text, lists)


def _gaps(body: bytes) -> Iterator[tuple[int, int]]:
    """Where long stretches without quotes are, outside of strings."""
    quotes, counted = 0, 0
    at = 0
    while at < len(body):
        quote = body.find(b'"', at, at + _STEP)
        if quote >= 0:
            at += _STEP
            continue
        start = body.rfind(b'"', 0, at) + 1
        stop = body.find(b'"', at + _STEP)
        stop = len(body) if stop < 0 else stop
        quotes += body.count(b'"', counted, start)
        counted = start
        if stop - start >= SHORTEST and quotes % 2 == 0:
            yield start, stop
        at = max(stop, at + _STEP)


def _list_within(body: bytes, start: int, stop: int) -> tuple[Array, int, int] | None:
    """The list of numbers that fills this stretch, and where it begins and ends; None where it is none."""
    opening = _OPENING.search(body, start, min(stop, start + _ROOM))
    tail = body[max(stop - _ROOM, start) : stop]
    inner = tail.rstrip(_AROUND)
    if opening is None or inner[-1:] not in _DIGITS or not inner:
        return None
    first, last = opening.end(), stop - len(tail) + len(inner)
    opened = [opening.start() + i for i, char in enumerate(opening[0]) if char == 0x5B]
    closed = _closed(tail[len(inner) :])
    depth = min(len(opened), len(closed))
    if not 0 < depth <= _DEEPEST or last - first < SHORTEST:
        return None
    try:
        array = _read(body, first, last, depth)
    except Odd:
        return None
    return array, opened[-depth], last + closed[depth - 1] + 1


def _closed(text: bytes) -> list[int]:
    """Where the brackets are that close lists, up to anything else."""
    places = []
    for i, char in enumerate(text):
        if char == 0x5D:
            places.append(i)
        elif char not in b" \t\r\n":
            break
    return places


def _read(body: bytes, start: int, stop: int, depth: int) -> Array:
    """The numbers from `start` to `stop`, `depth` lists deep. Raises Odd."""
    levels, closers = _levels(body, start, stop, depth)
    floats = b"." in body[start : start + _SAMPLE]
    wide = depth == 1 or len(levels) == 1 or levels[1].every >= _WIDE
    if floats and wide and stop - start < (_SHORTEST_LONG if _are_long(body, start) else _SHORTEST_WIDE):
        raise Odd
    if not floats and _MANY_DIGITS.search(body, start, min(start + 256, stop)):
        raise Odd
    size = min(BLOCK, stop - start + _ROOM)
    reader: Reader = Floats(levels, size) if floats else Integers(levels, size)
    kind = np.float64 if floats else np.int64
    # A few first: a list of other numbers is given up at once.
    end = _block_end(body, start, min(start + _SAMPLE, stop), stop)
    sample = body[start:end] if end < stop else body[start:end] + levels[-1].separator
    tried = np.empty(len(sample), kind)
    done = reader.read(sample, 0, tried)
    text = np.frombuffer(body, np.uint8)
    commas = sum(int(np.count_nonzero(text[at : min(at + BLOCK, stop)] == 0x2C)) for at in range(start, stop, BLOCK))
    count, row = commas + 1, levels[-1].every
    if count % row or done > count:
        raise Odd
    out = np.empty(count, kind)
    out[:done] = tried[:done]
    odd = 0
    while end < stop:
        start, end = end, _block_end(body, end, min(end + _WHOLE, stop), stop)
        block = body[start:end] if end < stop else body[start:end] + levels[-1].separator
        if odd < _ODD_BLOCKS:
            try:
                done += reader.read(block, done, out[done:])
                continue
            except Odd:
                odd += 1
        try:
            done += reader.otherwise(block, done, out[done:])
        except Odd:
            if out.dtype == np.float64:
                raise
            out = out.astype(np.float64)  # integers so far: with a float among them all are floats
            if np.abs(out[:done]).max() >= 2.0**63:
                raise
            reader = Floats(levels, size)
            done += reader.otherwise(block, done, out[done:])
    if done != count:
        raise Odd
    return out.reshape(_shape(count, levels, closers, depth))


def _are_long(body: bytes, start: int) -> bool:
    """Whether the first numbers have more than 14 characters each, separators included."""
    sample = body[start : start + 1024]
    return len(sample) > 14 * (sample.count(b",") + 1)


def _block_end(body: bytes, start: int, end: int, stop: int) -> int:
    """Where a block that begins at `start` ends: behind a separator, or at the end of all."""
    if end == stop:
        return stop
    comma = body.rfind(b",", start, end)
    after = _AFTER_COMMA.match(body, comma + 1, stop)
    if comma < 0 or after is None or after.end() - comma > _ROOM:
        raise Odd
    return after.end()


def _levels(body: bytes, start: int, stop: int, depth: int) -> tuple[list[Level], list[int]]:
    """The separators as they are met first, the innermost first, and how many lists each of them closes."""
    number = _NUMBER.match(body, start, stop)
    if number is None:
        raise Odd
    end, every = number.end(), 1
    levels: list[Level] = []
    closers: list[int] = []
    while True:
        separator = _SEPARATOR.match(body, end, stop)
        if separator is None:
            raise Odd
        closes = separator[1].count(b"]")
        if closes != separator[2].count(b"[") or closes >= depth or every % (levels[-1].every if levels else 1):
            raise Odd
        if len(separator[0]) > LONGEST_SEPARATOR:
            raise Odd
        levels.append(Level(every, separator[0]))
        closers.append(closes)
        if closes == depth - 1:
            return levels, closers
        more = re.compile(rb"\](?:" + _SPACE + rb"\]){%d}" % closes).search(body, separator.end(), stop)
        if more is None:
            return levels, closers
        every = 1 + body.count(b",", start, more.start())
        end = len(body[max(more.start() - _ROOM, start) : more.start()].rstrip(b" \t\r\n"))
        end += max(more.start() - _ROOM, start)


def _shape(count: int, levels: list[Level], closers: list[int], depth: int) -> list[int]:
    """The sizes of the list: a separator that closes k lists stands between blocks of k dimensions."""
    shape: list[int] = []
    for i, closes in enumerate(closers):
        size = levels[i].every // levels[i - 1].every if i else 1
        if i or closes:
            shape += [size] + [1] * (closes - len(shape) - 1)
    shape.append(count // levels[-1].every)
    shape += [1] * (depth - len(shape))
    return shape[::-1]
