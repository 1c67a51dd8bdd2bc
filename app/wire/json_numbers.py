"""Numbers in text to arrays: the digits of a million numbers at once, in NumPy, with nothing rounded twice.

`Floats` and `Integers` read a block of text: numbers, each followed by its separator. Eight characters are one 64-bit
word, and a column of words, one for each number, is worked on as a whole; a block is small enough for its columns to
stay in the processor's cache. Only plain numbers are read, `-12.5` or `-12`: the rest of JSON's numbers, and whatever
is no number, is `Odd`. What is read has been accounted for to the last byte: each digit belongs to a number, and
all that stands between two numbers is the separator that belongs there.

A number is taken to be M / 10^p, with the same p for the whole block. With M below 2^53 one division rounds
correctly (Clinger). With more digits the quotient may be off by one unit in the last place, and the remainder, an
integer that is known modulo 2^64, tells by how much.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

Array = np.ndarray[Any, Any]

BLOCK = 256 * 1024  # characters; a column of a block is some 100 to 200 KB
LEFT, RIGHT = 16, 128  # bytes before and after the text that words may reach into
LONGEST_SEPARATOR = 112  # lengths are single bytes, and a separator is compared in whole words
COLUMNS = 12
LONGEST = 40  # characters of a number that is read singly
WORKS = sys.byteorder == "little"  # the first character of a word is its lowest byte

_U = np.uint64
_ZEROS = _U(0x3030303030303030)
_TO_80 = _U(0x7676767676767676)  # added to a byte below 0x80 it sets the high bit from 10 on
_HIGH = _U(0x8080808080808080)
_PAIRS, _QUADS = _U(0x00FF00FF00FF00FF), _U(0x0000FFFF0000FFFF)
_TENS, _HUNDREDS, _TEN_THOUSANDS = _U(1 + (10 << 8)), _U(1 + (100 << 16)), _U(1 + (10_000 << 32))
_ONE, _3, _7, _8, _16, _32, _63, _64, _255 = map(_U, (1, 3, 7, 8, 16, 32, 63, 64, 255))
_AT_5, _AT_6 = _U(40), _U(48)  # the shifts that bring these bytes down
_SIXTH = _U(1 << 48)
_MANTISSA, _HIDDEN = _U((1 << 52) - 1), _U(1 << 52)
_COMMA, _DOT, _MINUS, _MINUS_AS_DIGIT = 44, 46, 45, _U(45 ^ 48)
_MAX_PLACES = 22  # 10**22 is the largest power of ten that is a float64
_MAX_EXACT = 1 << 53

_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_IN_NUMBER = b"0123456789+-.eE"


class Odd(Exception):
    """The text is not what these readers read; it may be JSON all the same."""


@dataclass(slots=True)
class Level:
    """Every `every` numbers, going by their place in the whole list, `separator` stands between two numbers."""

    every: int
    separator: bytes


class Reader:
    """What both readers have: the block's text, and columns to work in."""

    def __init__(self, levels: Sequence[Level], size: int = BLOCK) -> None:
        """`levels` begins with that of single numbers, and each is a multiple of the one before. A block has at most
        `size` characters.
        """
        self.levels = levels
        self._size = size = -(-size // 8) * 8
        words = (LEFT + size + RIGHT) // 8
        self._words = np.zeros(words, _U)
        self._bytes = self._words.view(np.uint8)
        self._is = np.empty(size + 8, np.bool_)
        self._is_too = np.empty(size + 8, np.bool_)
        self._columns = np.empty((COLUMNS, size // 2 + 1), _U)
        self._small = np.empty((4, size // 2 + 1), np.uint8)

    def read(self, text: bytes, first: int, out: Array) -> int:
        """Read a block whose first number is the list's `first` into `out`; how many there were. Raises Odd."""
        raise NotImplementedError

    def _take(self, text: bytes) -> int:
        """The text into the block; how long it is."""
        size = len(text)
        if not 0 < size <= self._size or not text.isascii():
            raise Odd
        self._bytes[LEFT - 1] = _COMMA
        self._bytes[LEFT : LEFT + size] = np.frombuffer(text, np.uint8)
        self._bytes[LEFT + size : LEFT + size + RIGHT] = 0
        return size

    def _places(self, byte: int, size: int) -> Array:
        """Where in the text `byte` stands, plus one."""
        found = self._is[: size + 8 & ~7]
        np.equal(self._bytes[LEFT - 1 : LEFT - 1 + len(found)], byte, out=found)
        quads = found.view(np.uint32)
        hits = quads.astype(np.bool_).nonzero()[0]
        # Two of them are never within four bytes of each other (`1.0,2.0`): what is one there is found by arithmetic.
        if np.count_nonzero(found) != len(hits):
            return found.nonzero()[0]
        within = quads.take(hits)
        np.multiply(within, np.uint32(0x00010203), out=within)
        np.right_shift(within, np.uint32(24), out=within)
        np.left_shift(hits, 2, out=hits)
        np.add(hits, within.astype(np.int64), out=hits)
        return hits

    def _shifts(self, after: Array, n: int) -> tuple[Array, Array, Array]:
        """For the words that begin at `after`: which aligned word they begin in, and the shifts of it and the next."""
        index, down, up = self._columns[0, :n], self._columns[1, :n], self._columns[2, :n]
        places = after.view(_U)
        np.right_shift(places, _3, out=index)
        np.bitwise_and(places, _7, out=down)
        np.left_shift(down, _3, out=down)
        np.subtract(_64, down, out=up)
        return index.view(np.int64), down, up

    def _aligned(self, index: Array, which: int, out: Array) -> Array:
        """The aligned words, `which` words on from those that the text's first one counts from."""
        return self._words[LEFT // 8 + which :].take(index, out=out, mode="wrap")

    def _separators(self, ends: Array, first: int) -> None:
        """Check that at the numbers' ends the separators stand that belong there; `first` is the first one's place in
        the whole list.
        """
        n = len(ends)
        plain = n
        for k in range(1, len(self.levels)):
            level = self.levels[k]
            here = ends[-(first + 1) % level.every :: level.every]
            if k + 1 < len(self.levels):
                numbers = np.arange(first + 1 + (-(first + 1) % level.every), first + n + 1, level.every)
                here = here[numbers % self.levels[k + 1].every != 0]
            if self._stands(level.separator, here) != len(here):
                raise Odd
            plain -= len(here)
        # No other separator begins as the plain one does: those have a bracket before their comma, or more of them.
        if self._stands(self.levels[0].separator, ends) != plain:
            raise Odd

    def _stands(self, separator: bytes, places: Array) -> int:
        """At how many of the places in the text the separator stands."""
        there = np.ones(len(places), np.bool_)
        for at, char in enumerate(separator):
            there &= self._bytes[LEFT + at :].take(places, mode="wrap") == char
        return int(np.count_nonzero(there))

    def _by_commas(self, size: int, first: int) -> Array:
        """Where numbers end if every comma is where it belongs."""
        after = self._places(_COMMA, size)[1:]  # the first one is that put before the text
        moved = -1
        for level in self.levels:
            offset = level.separator.index(b",")
            after[-(first + 1) % level.every :: level.every] -= offset - moved
            moved = offset
        return after

    def otherwise(self, text: bytes, first: int, out: Array) -> int:
        """As `read`, by orjson: numbers of any kind that `out` can hold."""
        size = self._take(text)
        ends = self._by_commas(size, first)
        n = len(ends)
        if not n or n > len(out) or ends.min() < 0:
            raise Odd
        self._separators(ends, first)
        brackets, before = 0, 0
        for level in self.levels:
            here = level.separator.count(b"[")
            brackets += len(ends[-(first + 1) % level.every :: level.every]) * (here - before)
            before = here
        if text.count(b"[") != brackets or text.count(b"]") != brackets:
            raise Odd
        try:
            values = orjson.loads(b"[%s]" % text.translate(None, b"[]").rstrip(b", \t\r\n"))
        except orjson.JSONDecodeError:
            raise Odd from None
        floats = out.dtype == np.float64
        if len(values) != n or not set(map(type, values)) <= ({float, int} if floats else {int}):
            raise Odd
        try:
            out[:n] = values
        except OverflowError:
            raise Odd from None
        if floats and np.abs(out[:n]).max() >= 2.0**63:
            raise Odd
        return n

    def _steps(self, n: int, first: int, out: Array) -> Array:
        """How long the separators of the block's numbers are."""
        out[:] = len(self.levels[0].separator)
        for level in self.levels[1:]:
            out[-(first + 1) % level.every :: level.every] = len(level.separator)
        return out

    def _check_steps(self, gaps: Array, expected: Array) -> bool:
        """Whether all `gaps`, int64, are as `expected`, uint8."""
        if gaps.max() > 255 or gaps.min() < 0:
            return False
        narrow = self._small[3, : len(gaps)]
        np.copyto(narrow, gaps, casting="unsafe")
        return bool((narrow == expected).all())

    def _integer_part(self, word: Array, a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
        """The integers of up to 7 digits that end below the top byte of the words: values, lengths, and whether
        negative. Raises Odd for a zero before other digits, and for none. Writes over `word`, `a`, `b` and `c`.
        """
        n = len(word)
        digits, stops, top = word, a, b
        np.left_shift(word, _8, out=digits)
        np.bitwise_xor(digits, _ZEROS, out=digits)
        np.add(digits, _TO_80, out=stops)
        np.bitwise_and(stops, _HIGH, out=stops)
        np.right_shift(stops, _7, out=stops)
        for shift in (_8, _16, _32):  # what is no digit stops all that is before it
            np.right_shift(stops, shift, out=top)
            np.bitwise_or(stops, top, out=stops)
        lengths = np.bitwise_count(stops, out=self._small[1, :n])
        np.subtract(8, lengths, out=lengths)
        np.right_shift(stops, _8, out=top)
        np.bitwise_xor(stops, top, out=top)  # the last stop alone
        np.multiply(top, _255, out=c)
        np.bitwise_and(c, digits, out=c)
        negative = np.equal(c, np.multiply(top, _MINUS_AS_DIGIT, out=top), out=self._small[2, :n].view(np.bool_))
        np.right_shift(stops, _8, out=top)
        np.bitwise_xor(stops, top, out=top)
        np.left_shift(top, _8, out=c)
        np.multiply(c, _255, out=c)
        np.bitwise_and(c, digits, out=c)
        zero_first = np.equal(c, 0, out=self._is[:n])
        if np.logical_and(zero_first, np.not_equal(top, _SIXTH, out=self._is_too[:n]), out=zero_first).any():
            raise Odd
        np.multiply(stops, _255, out=stops)
        np.bitwise_not(stops, out=stops)
        np.bitwise_and(digits, stops, out=digits)
        return _parsed(digits), lengths, negative


class Floats(Reader):
    """Reads numbers that all have a dot, or an exponent, to float64."""

    def __init__(self, levels: Sequence[Level], size: int = BLOCK) -> None:
        super().__init__(levels, size)
        self._one_digit = True  # before the dot, as it was in the last block

    def read(self, text: bytes, first: int, out: Array) -> int:
        """As the reader's: dots first, then what is on both sides of them."""
        size = self._take(text)
        named = self._exponents(text)
        after = self._places(_DOT, size)
        n = len(after)
        if not n or n > min(len(out), self._columns.shape[1]):
            raise Odd
        columns = self._columns
        index, down, up = self._shifts(after, n)
        whole, fraction, spare, spare2 = (columns[i, :n] for i in (3, 4, 5, 6))
        self._aligned(index, -1, whole)
        self._aligned(index, 0, fraction)
        np.right_shift(whole, down, out=whole)
        np.left_shift(fraction, up, out=spare)
        np.bitwise_or(whole, spare, out=whole)
        words, counts = self._fraction(index, down, up, fraction)
        value, negative, lengths = self._whole(whole, after, counts, first, size)
        ends = after + counts
        self._separators(ends, first)
        places = int(counts.max())
        value, places = self._significand(value, words, places)
        found = out[:n]
        _divided(value, places, found, columns[7, :n], spare, spare2)
        self._singly(text, found, counts > places, after, lengths, ends)
        np.copyto(spare, negative)
        np.left_shift(spare, _63, out=spare)
        np.bitwise_or(found.view(_U), spare, out=found.view(_U))
        for at, number in named:
            place = int(np.searchsorted(after, at))
            found[place] = number
        return n

    def _exponents(self, text: bytes) -> list[tuple[int, float]]:
        """The numbers with exponents, each with where it starts; plain ones take their places in the text."""
        found: list[tuple[int, float]] = []
        for letter in (b"e", b"E"):
            at = text.find(letter)
            while at >= 0:
                near = text[max(at - LONGEST, 0) : at]
                start = at - len(near) + len(near.rstrip(_IN_NUMBER))
                if at - start == LONGEST:
                    raise Odd
                token = _NUMBER.match(text, start)
                if token is None or token.end() <= at or len(found) > 4 + len(text) // 256:
                    raise Odd
                value = float(token[0])
                if abs(value) >= 2.0**63:
                    raise Odd
                plain = b"-0." if token[0][:1] == b"-" else b"0."
                plain = plain.ljust(token.end() - start, b"0")
                self._bytes[LEFT + start : LEFT + token.end()] = np.frombuffer(plain, np.uint8)
                found.append((start, value))
                at = text.find(letter, token.end())
        return found

    def _fraction(self, index: Array, down: Array, up: Array, begin: Array) -> tuple[list[Array], Array]:
        """The digits after the dot, in words of eight with zeros at the end, and how many there are."""
        n = len(index)
        counts = self._small[0, :n]
        words: list[Array] = []
        full: Array | None = None
        for i in range(3):
            digits, mask, spare = self._columns[8 + i, :n], self._columns[5, :n], self._columns[6, :n]
            after = self._columns[7 if i % 2 == 0 else 4, :n]
            self._aligned(index, i + 1, after)
            np.right_shift(begin, down, out=digits)
            np.left_shift(after, up, out=spare)
            np.bitwise_or(digits, spare, out=digits)
            begin = after
            np.bitwise_xor(digits, _ZEROS, out=digits)
            np.add(digits, _TO_80, out=spare)
            np.bitwise_and(spare, _HIGH, out=spare)
            np.right_shift(spare, _7, out=spare)  # a bit for each character that is no digit
            np.subtract(spare, _ONE, out=mask)
            np.bitwise_not(spare, out=spare)
            np.bitwise_and(mask, spare, out=mask)  # all bits below the first of them
            if full is not None:
                np.bitwise_and(mask, full, out=mask)
            np.bitwise_and(digits, mask, out=digits)
            words.append(digits)
            if i == 0:
                np.bitwise_count(mask, out=counts)
            else:
                np.add(counts, np.bitwise_count(mask, out=self._small[1, :n]), out=counts)
            if counts.max() < 64 * (i + 1):
                break
            full = self._columns[11, :n]
            np.right_shift(mask.view(np.int64), 63, out=full.view(np.int64))  # all ones where the word is all digits
        np.right_shift(counts, 3, out=counts)
        if not counts.min():
            raise Odd
        return words, counts

    def _whole(self, word: Array, after: Array, counts: Array, first: int, size: int) -> tuple[Array, Array, Array]:
        """What is before the dots, whether it is negative, and how long, dot and sign included. All of the text is
        accounted for then.
        """
        n = len(word)
        a, b, c = (self._columns[i, :n] for i in (4, 5, 6))
        gaps = c.view(np.int64)
        steps = self._steps(n, first, self._small[1, :n])
        if self._one_digit:
            negative = self._small[2, :n].view(np.bool_)
            np.right_shift(word, _AT_6, out=a)
            np.bitwise_and(a, _255, out=a)
            np.bitwise_xor(a, _U(48), out=a)
            if a.max() > 9:
                raise Odd
            np.right_shift(word, _AT_5, out=b)
            np.bitwise_and(b, _255, out=b)
            np.equal(b, _MINUS, out=negative)
            lengths = negative.view(np.uint8) + np.uint8(2)
            if self._accounted(after, counts, steps, lengths, gaps, size):
                return a, negative, lengths
        kept = steps.copy()
        value, lengths, negative = self._integer_part(word, a, b, c)
        self._one_digit = bool(lengths.max() == 1)
        lengths = lengths + negative.view(np.uint8) + np.uint8(1)
        if not self._accounted(after, counts, kept, lengths, gaps, size):
            raise Odd
        return value, negative, lengths

    def _accounted(self, after: Array, counts: Array, steps: Array, lengths: Array, gaps: Array, size: int) -> bool:
        """Whether digits, separators and what comes before each dot (`lengths`, the dot included) fill the text."""
        n = len(after)
        if after[0] != int(lengths[0]) or after[n - 1] + int(counts[n - 1]) + int(steps[n - 1]) != size:
            return False
        np.subtract(after[1:], after[:-1], out=gaps[: n - 1])
        expected = counts + steps
        expected[:-1] += lengths[1:]
        return n == 1 or self._check_steps(gaps[: n - 1], expected[:-1])

    def _significand(self, whole: Array, words: list[Array], places: int) -> tuple[Array, int]:
        """All digits as one integer: the numbers times 10^places, which may leave off the last of very many."""
        high = _parsed(words[0])
        np.multiply(whole, _U(10**8), out=whole)
        np.add(high, whole, out=high)
        room = (2**64 - 1) // (int(high.max()) + 1)
        places = min(places, 8 + len(str(room)) - 1, _MAX_PLACES)
        if places <= 8:
            return high, 8
        last = words[1]
        if places > 16:
            middle = _parsed(words[1])
            np.multiply(high, _U(10**8), out=high)
            np.add(high, middle, out=high)
            last = words[2]
        here = (places - 1) % 8 + 1
        np.left_shift(last, _U(8 * (8 - here)), out=last)
        np.multiply(high, _U(10**here), out=high)
        return np.add(high, _parsed(last), out=high), places

    def _singly(self, text: bytes, found: Array, longer: Array, after: Array, lengths: Array, ends: Array) -> None:
        """Numbers with more digits than were read, and those next to which the remainder says too little."""
        np.logical_or(longer, np.isnan(found), out=longer)
        which = longer.nonzero()[0]
        if len(which) * 10 > len(found):
            raise Odd
        if len(which):
            starts = after[which] - lengths[which]
            bounds = zip(starts.tolist(), ends[which].tolist(), strict=True)
            found[which] = [abs(float(text[start:end])) for start, end in bounds]


class Integers(Reader):
    """Reads numbers of up to 7 digits without dot or exponent to int64."""

    def read(self, text: bytes, first: int, out: Array) -> int:
        """As the reader's: the numbers end where the commas say."""
        size = self._take(text)
        ends = self._by_commas(size, first)
        n = len(ends)
        if not n or n > min(len(out), self._columns.shape[1]) or ends.min() < 0:
            raise Odd
        after = ends + 1
        index, down, up = self._shifts(after, n)
        word, spare, a, b = (self._columns[i, :n] for i in (3, 4, 5, 6))
        self._aligned(index, -1, word)
        self._aligned(index, 0, spare)
        np.right_shift(word, down, out=word)
        np.left_shift(spare, up, out=spare)
        np.bitwise_or(word, spare, out=word)
        value, lengths, negative = self._integer_part(word, spare, a, b)
        lengths = lengths + negative.view(np.uint8)
        steps = self._steps(n, first, self._small[0, :n])
        if ends[0] != int(lengths[0]) or ends[n - 1] + int(steps[n - 1]) != size:
            raise Odd
        if n > 1 and not self._check_steps(ends[1:] - ends[:-1], steps[:-1] + lengths[1:]):
            raise Odd
        self._separators(ends, first)
        found = out[:n]
        np.copyto(spare, negative)
        np.negative(spare, out=spare)  # all ones where negative: ~x + 1 = -x
        np.bitwise_xor(value, spare, out=value)
        np.subtract(value, spare, out=found.view(_U))
        return n


def _parsed(words: Array) -> Array:
    """Eight digits, as bytes of their value, the first one lowest, to the number they write; in place."""
    np.multiply(words, _TENS, out=words)
    np.right_shift(words, _8, out=words)
    np.bitwise_and(words, _PAIRS, out=words)
    np.multiply(words, _HUNDREDS, out=words)
    np.right_shift(words, _16, out=words)
    np.bitwise_and(words, _QUADS, out=words)
    np.multiply(words, _TEN_THOUSANDS, out=words)
    return np.right_shift(words, _32, out=words)


def _divided(value: Array, places: int, out: Array, a: Array, b: Array, c: Array) -> None:
    """`value` / 10^places, each the float64 next to it; NaN where that cannot be told. Writes over the others."""
    np.copyto(out, value, casting="unsafe")
    np.divide(out, 10.0**places, out=out)
    if value.max() < _MAX_EXACT:
        return
    # `out` is m * 2^-s. Next to it is value / 10^places = value / (2^places * 5^places), and the difference, in
    # units of 2^-s / 5^places, is value * 2^(s - places) - m * 5^places: less than 1.5 * 5^places, so that 64 bits
    # hold it, and correctly rounded is what is within 5^places / 2 (an odd number: there are no ties). Below a power
    # of two the unit is half of it, and so that case is left to another reader. Where value is below 2^53 it says
    # that the quotient is right.
    bits = out.view(_U)
    five = 5**places
    np.right_shift(bits, _U(52), out=a)
    np.subtract(_U(1075 - places), a, out=a)
    np.left_shift(value, a, out=a)
    np.bitwise_and(bits, _MANTISSA, out=b)
    np.bitwise_or(b, _HIDDEN, out=b)
    np.multiply(b, _U(five), out=c)
    np.subtract(a, c, out=a)
    rest = a.view(np.int64)
    more, less, below = rest > five // 2, rest < -(five // 2), rest < 0
    np.copyto(rest, np.subtract(more.view(np.int8), less.view(np.int8)))
    unsure = (b == _HIDDEN) & below
    np.add(bits, a, out=bits)
    if unsure.any():
        out[unsure] = np.nan
    if not value.min():  # of zero nothing above is true
        out[value == 0] = 0.0
