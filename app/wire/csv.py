"""text/csv: a table of numbers as a tensor of two dimensions, and tensors of one or two dimensions as such a table.

Fields are separated by commas and may stand in double quotes (RFC 4180); lines that are empty or hold blanks alone do
not count. A header is skipped only where the caller says so, never guessed: a first line of words is refused like any
other that is not numbers. What is refused is named by row and column as an editor counts them, from 1.

A dtype is inferred as torch.tensor does it: all integers give int64, all true/false give bool, and any float makes the
table float, in the session's default dtype. Integers are read as integers, so that int64 keeps its digits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from app.wire.arrays import values_of
from engine.dtypes import bf16_to_f32
from engine.dtypes import dtype as dtype_named
from engine.errors import Hint, Invalid, LimitExceeded, Malformed, NotAcceptable, WrongType
from engine.service import ArrayData, TensorAnswer

MEDIA_TYPE = "text/csv"
MAX_FIELD = 1000  # characters; no number is longer
_BOM = b"\xef\xbb\xbf"
_BOOLS = {"true": True, "false": False}
_INT64 = (-(2**63), 2**63 - 1)

Number = bool | int | float


def read(body: bytes, skip_rows: int = 0, columns: Sequence[int] | None = None, dtype: str | None = None) -> ArrayData:
    """The table in `body` as rows x columns, without its first `skip_rows` lines; of `columns` alone, in that order.

    Raises Malformed for what is no table of numbers (ragged rows, words, other encodings), naming row and column;
    Invalid for a column that is not there; WrongType for a dtype that a table cannot have.
    """
    wanted = None if dtype is None else dtype_named(dtype)
    if wanted is not None and wanted.is_complex:
        raise WrongType(f"a CSV file holds real numbers, and dtype is {wanted.name}", param="dtype")
    try:
        text = body.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(
            f"the CSV file is not UTF-8 (byte {error.start})", code="csv-encoding", hint=Hint("csv-encoding")
        ) from None
    rows: list[list[Number]] = []
    width: int | None = None
    for line, fields in _lines(text, skip_rows):
        if width is None:
            width = len(fields)
            _check_columns(columns, width)
        elif len(fields) != width:
            raise Malformed(
                f"row {line} has {len(fields)} columns, and the rows before have {width}",
                code="csv-ragged",
                hint=Hint("csv-how"),
                row=line,
            )
        at = range(width) if columns is None else columns
        rows.append([_number(fields[i], line, i + 1) for i in at])
    if width is None:
        raise Malformed("the CSV file has no row of numbers", code="csv-empty", hint=Hint("csv-how"))
    return _array(rows, wanted.name if wanted is not None else None)


def _lines(text: str, skip_rows: int) -> Iterator[tuple[int, list[str]]]:
    """The rows that count, each with the number of the line it ends on."""
    # A line that is skipped is skipped as it stands: a title may hold a quote that nothing closes.
    stream = io.StringIO(text, newline="")
    for _ in range(skip_rows):
        if not stream.readline():
            return
    reader = csv.reader(stream, strict=True, skipinitialspace=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = skip_rows + reader.line_num
            raise Malformed(f"row {line} is not CSV: {error}", code="not-csv", row=line) from None
        if fields and any(field.strip() for field in fields):
            yield skip_rows + reader.line_num, fields


def _check_columns(columns: Sequence[int] | None, width: int) -> None:
    for column in columns or ():
        if column >= width:
            raise Invalid(
                f"columns={column} is out of range: the rows have {width} columns, counted from 0",
                code="csv-column",
                param="columns",
            )


def _number(field: str, row: int, column: int) -> Number:
    text = field.strip()
    if len(text) > MAX_FIELD:
        raise Malformed(f"row {row}, column {column} is {len(text)} characters long", code="not-a-number", row=row)
    try:
        if text.isascii() and "_" not in text:
            return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        if text.lower() in _BOOLS:
            return _BOOLS[text.lower()]
    shown = repr(text if len(text) <= 40 else text[:40] + "...") if text else "empty"
    raise Malformed(
        f"row {row}, column {column} is {shown}, which is not a number",
        code="not-a-number",
        hint=Hint("csv-empty-field" if not text else "csv-comma" if ";" in text or "\t" in text else "csv-how"),
        row=row,
        column=column,
    )


def _array(rows: list[list[Number]], dtype: str | None) -> ArrayData:
    kinds = {type(value) for row in rows for value in row}
    if kinds <= {bool}:
        return ArrayData(np.array(rows, np.bool_), "bool", inferred=True)
    if float in kinds:
        try:
            return ArrayData(np.array(rows, np.float64), "float64", inferred=True)
        except OverflowError:
            words = "an integer in the CSV file is too large for a float64"
            raise LimitExceeded(words, code="integer-too-large") from None
    low, high = min(map(min, rows)), max(map(max, rows))
    if _INT64[0] <= low and high <= _INT64[1]:
        return ArrayData(np.array(rows, np.int64), "int64", inferred=True)
    if dtype is not None and dtype_named(dtype).is_floating and max(abs(low), abs(high)) < 1 << 1023:
        return ArrayData(np.array([[float(v) for v in row] for row in rows]), "float64", inferred=True)
    raise LimitExceeded("an integer in the CSV file has more than 64 bits", code="integer-too-large")


def write(answer: TensorAnswer) -> tuple[dict[str, str], bytes]:
    """The tensor as lines of numbers, each with the fewest digits that read back; one dimension is one column.

    Raises NotAcceptable for other numbers of dimensions and for complex numbers.
    """
    values, dtype = values_of(answer)
    if values.ndim not in (1, 2):
        raise NotAcceptable(
            f"CSV holds one or two dimensions, and this tensor has {values.ndim}",
            code="shape-not-acceptable",
            hint=Hint("csv-shape", forms=["json", "npy"]),
        )
    if dtype.is_complex:
        raise NotAcceptable(
            f"CSV cannot hold {dtype.name}",
            code="dtype-not-acceptable",
            hint=Hint("other-form", forms=["npy", "raw", "json"]),
        )
    table: np.ndarray[Any, Any] = values.reshape(-1, 1) if values.ndim == 1 else values
    if dtype.name == "bfloat16":
        table = bf16_to_f32(table)
    text = "".join(",".join(map(_text, row)) + "\r\n" for row in table)
    return {"Content-Type": f"{MEDIA_TYPE}; charset=utf-8; header=absent"}, text.encode("ascii")


def _text(value: Any) -> str:
    # str() of a NumPy scalar has the fewest digits for its own dtype; those of a float64 made of it would be more.
    return str(value).lower() if value.dtype.kind == "b" else str(value)
