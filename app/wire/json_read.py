"""JSON in: bytes to Python values, with nothing guessed and nothing lost.

orjson reads; what it would let pass is looked for afterwards. An integer of more than 64 bits (it makes a float of
one), a key given twice (it keeps the last), too deep nesting: each is refused. Integers and floats stay apart (`1`
and `1.0`).

A long regular list of numbers is also kept as an array, beside the list and found by the list's identity: whoever
knows what the list stands for (`arguments.py`) takes the array instead, and the million numbers are never handled one
by one again. The longest are read straight to arrays, and orjson sees the body without them (`json_lists.py`); such a
list is filled when nobody took its array.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import orjson

from app.wire import json_lists
from engine.errors import Hint, LimitExceeded, Malformed
from engine.service import ArrayData

MAX_DEPTH = 128
ARRAY_FROM = 256  # elements; below it a list is handled faster than an array
MAX_INTEGER = 2**64 - 1  # the largest seed; the engine refuses what does not fit in int64 where a tensor is meant
MIN_INTEGER = -(2**63)

_CONTAINERS = frozenset((dict, list))
_FLOATS = {float}
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_BOM = b"\xef\xbb\xbf"


class Arrays(dict[int, ArrayData]):
    """The long numeric lists of a document, by their `id()`; the document keeps the lists alive.

    Those that were read straight to arrays are empty lists until they are filled: by `fill`, or one by one.
    """

    __slots__ = ("_empty",)

    def __init__(self) -> None:
        self._empty: dict[int, tuple[list[Any], memoryview]] = {}

    def keep(self, value: list[Any], array: np.ndarray[Any, Any], text: memoryview | None = None) -> None:
        """Keep the array of a list, and if the list is empty as yet its text."""
        self[id(value)] = ArrayData(array, array.dtype.name, inferred=True)
        if text is not None:
            self._empty[id(value)] = value, text

    def take(self, value: Any) -> ArrayData | None:
        """The array of a list for which it stands from now on, so that the list need not be filled; or None."""
        self._empty.pop(id(value), None)
        return self.get(id(value))

    def fill(self, value: Any = None) -> None:
        """Fill the lists whose arrays nobody took; or this one alone."""
        for key in list(self._empty) if value is None else [id(value)]:
            if key in self._empty:
                empty, text = self._empty.pop(key)
                empty.extend(orjson.loads(text))

    def join(self, other: Arrays) -> None:
        """Take over what another document has."""
        self.update(other)
        self._empty.update(other._empty)


@dataclass(slots=True)
class Document:
    """A JSON value; `arrays` has the long numeric lists in it. In `bare` those not filled are empty lists."""

    bare: Any
    arrays: Arrays = field(default_factory=Arrays)

    @property
    def value(self) -> Any:
        """The value, with all lists filled."""
        self.arrays.fill()
        return self.bare


def read(body: bytes) -> Document:
    """The value in `body`. Raises Malformed where it is no JSON, LimitExceeded where it is more than is taken."""
    body = body.removeprefix(_BOM)
    cut = json_lists.cut(body)
    document = None if cut is None else _without_lists(*cut)
    return read_whole(body) if document is None else document


def _without_lists(text: bytes, lists: list[json_lists.LongList]) -> Document | None:
    """The document whose long lists are `[]` in the text; None where anything is to be said against the rest of it."""
    try:
        document = Document(orjson.loads(text))
    except orjson.JSONDecodeError:
        return None
    if type(document.bare) is not dict and type(document.bare) is not list:
        return None
    walk = _Walk(document.arrays)
    if walk.colons(document.bare, MAX_DEPTH) != text.count(b":") or walk.huge or len(walk.empty) != len(lists):
        return None
    for value, found in zip(walk.empty, lists, strict=True):
        document.arrays.keep(value, found.array, found.text)
    return document


def read_whole(body: bytes) -> Document:
    """As `read`, with every number read by orjson. No byte order mark is passed over."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse(body, error)
    document = Document(value)
    if type(value) is dict or type(value) is list:
        walk = _Walk(document.arrays)
        colons = walk.colons(value, MAX_DEPTH)
        # Each key has one colon outside of strings. With fewer keys than colons one was given twice; with a colon
        # written as an escape the count says nothing; a float beyond 2**63 may have been an integer. Then the slow
        # reader decides.
        if colons != body.count(b":") or walk.huge or (b"\\" in body and b"\\u003" in body):
            _read_exactly(body)
    elif type(value) is float and abs(value) >= 2.0**63:
        _read_exactly(body)
    return document


class _Walk:
    """One pass over a value: bounds its depth, counts its colons, sets long numeric lists apart as arrays."""

    __slots__ = ("arrays", "empty", "huge")

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.empty: list[list[Any]] = []  # the empty lists, in the text's order
        self.huge = False

    def colons(self, value: dict[str, Any] | list[Any], left: int) -> int:
        """How many colons the text of `value` has, if none is escaped and no key was dropped."""
        if not left:
            raise LimitExceeded(f"the JSON is nested more than {MAX_DEPTH} levels deep", code="nested-too-deeply")
        if isinstance(value, dict):
            count = len(value)
            for key, item in value.items():
                if ":" in key:
                    count += key.count(":")
                kind = type(item)
                if kind is str:
                    count += item.count(":")
                elif kind is dict or kind is list:
                    count += self.colons(item, left - 1)
                elif kind is float and abs(item) >= 2.0**63:
                    self.huge = True
            return count
        if not value:
            self.empty.append(value)
            return 0
        if _is_long(value) and self._keep_array(value):
            return 0
        kinds = set(map(type, value))
        count = 0
        if kinds == _FLOATS:
            self.huge = self.huge or max(value) >= 2.0**63 or min(value) <= -(2.0**63)
            return 0
        if float in kinds and any(abs(item) >= 2.0**63 for item in value if type(item) is float):
            self.huge = True
        if str in kinds:
            count += sum(item.count(":") for item in value if type(item) is str)
        if not kinds.isdisjoint(_CONTAINERS):
            count += sum(self.colons(item, left - 1) for item in value if isinstance(item, dict | list))
        return count

    def _keep_array(self, value: list[Any]) -> bool:
        """Whether the list is numbers, nested regularly; then its array is kept, unless integers may be lost in it."""
        found = _as_array(value)
        if found is None:
            return False
        if _is_huge(found):
            self.huge = True
        else:
            self.arrays.keep(value, found)
        return True


def array_of(value: list[Any]) -> ArrayData | None:
    """The array that a list of numbers is; None where it is ragged, more than numbers, or integers may be lost."""
    found = _as_array(value)
    return None if found is None or _is_huge(found) else ArrayData(found, found.dtype.name, inferred=True)


def _is_huge(found: np.ndarray[Any, Any]) -> bool:
    """Whether there are floats among these that may have been integers beyond int64."""
    if found.dtype.kind != "f":
        return False
    magnitudes = np.abs(found)
    return bool(((magnitudes >= 2.0**63) & (magnitudes < np.inf)).any())


def _is_long(value: list[Any]) -> bool:
    """Whether the list, going by the first item of each level, holds at least ARRAY_FROM numbers."""
    count = 1
    item: Any = value
    while type(item) is list and item:
        count *= len(item)
        item = item[0]
    return count >= ARRAY_FROM and (type(item) in (int, float, bool) or item in ("NaN", "Infinity", "-Infinity"))


def _as_array(value: list[Any]) -> np.ndarray[Any, Any] | None:
    """The list as bool, int64 or float64, as torch.tensor would infer; None where it is ragged or more than numbers."""
    if type(value[0]) is float:
        # A float among numbers makes them all floats, and this reads nothing but numbers: no look at each is needed.
        try:
            return np.frombuffer(array("d", value), np.float64)
        except (TypeError, OverflowError):
            pass  # strings, lists, null: what follows knows them apart
    kinds = _leaf_types(value)
    if kinds is None or not kinds <= {bool, int, float, str}:
        return None
    if str in kinds:
        named = _name_constants(value)
        if named is None:
            return None
        value = named
        kinds = kinds - {str} | {float}
    dtype = np.float64 if float in kinds else np.int64 if int in kinds else np.bool_
    try:
        return np.array(value, dtype)
    except (ValueError, OverflowError):
        return None


def _leaf_types(value: list[Any]) -> set[type] | None:
    """The types of the numbers in a nested list; None where a level mixes lists with others."""
    kinds: set[type] = set(map(type, value))
    if list not in kinds:
        return kinds
    if len(kinds) > 1:
        return None
    found: set[type] = set()
    for item in value:
        inner = _leaf_types(item)
        if inner is None:
            return None
        found |= inner
    return found


def _name_constants(value: list[Any]) -> list[Any] | None:
    """The list with "NaN", "Infinity" and "-Infinity" as floats; None where another string is in it."""
    named: list[Any] = []
    for item in value:
        if type(item) is list:
            item = _name_constants(item)
        elif type(item) is str:
            item = _CONSTANTS.get(item)
        if item is None:
            return None
        named.append(item)
    return named


def _refuse(body: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    """The refusal of bytes that orjson did not read, in words for who wrote them."""
    reason = str(error).split(": line ")[0]
    if not body.strip():
        raise Malformed("the body is empty, and JSON was expected", code="not-json") from None
    if "depth limit" in reason:
        raise LimitExceeded(f"the JSON is nested more than {MAX_DEPTH} levels deep", code="nested-too-deeply") from None
    if "infinity" in reason:
        raise Malformed(
            "a number in the body is too large for a float64", code="not-json", hint=Hint("json-nan")
        ) from None
    hint = None
    if "UTF-8" not in reason:
        rest = body.decode("utf-8", "replace")[error.pos :].lstrip("-+")
        if rest[:3].lower() in ("nan", "inf"):
            hint = Hint("json-nan")
        elif rest[:1] == "'" or body[:1] == b"'":
            hint = Hint("json-quotes")
        elif rest[:4] in ("True", "None") or rest[:5] == "False":
            hint = Hint("json-python")
        elif "comma" in reason:
            hint = Hint("json-comma")
        elif "string key" in reason:
            hint = Hint("json-key")
    raise Malformed(
        f"the body is not JSON: {reason} (line {error.lineno}, column {error.colno})", code="not-json", hint=hint
    ) from None


def _read_exactly(body: bytes) -> None:
    """Read once more with a slow reader that sees every key and every digit; raises what it finds."""
    try:
        json.loads(body, object_pairs_hook=_unique, parse_int=_integer)
    except RecursionError:
        raise LimitExceeded(f"the JSON is nested more than {MAX_DEPTH} levels deep", code="nested-too-deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise Malformed(f"the key {key!r} is given twice in one object", code="duplicate-key")
        seen.add(key)


def _integer(digits: str) -> None:
    if len(digits) > 20 or not MIN_INTEGER <= int(digits) <= MAX_INTEGER:
        shown = digits if len(digits) <= 40 else f"{digits[:40]}..."
        raise LimitExceeded(f"the integer {shown} has more than 64 bits", code="integer-too-large")
