"""A session as one safetensors file. Format 1.

`snapshots/<session>.<n>.safetensors`: the session as it was after its record `n`. What any reader of safetensors sees:

    s<uid>      each storage, one-dimensional (bfloat16 as BF16; complex numbers with a last dimension of 2)
    a<k>        an array that only the tape holds, as U8
    rows        U8: msgpack of {"commit": the session as one commit, its data being names of the above,
                "answers": [[key, digest, at, reply, short]]}
    __metadata__
      format    "curlgrad snapshot 1"
      about     JSON: {"session", "n", "lsn": of the newest record of the log that it covers, "last_used", "open": {…},
                "info": what the session says of itself, "crc": {name: crc of its bytes}}
      crc       of the bytes of `about`, in decimal digits

The tape's rows are msgpack and not JSON: they hold NaNs, big integers and complex numbers, and there may be a million.
Integers beyond 64 bits are ext 1 as in records.py; ext 3 is the name of a tensor. The file is written under a name
ending in `.tmp`, synced and renamed, after the log was synced: it never says more than the log.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from engine.durability.files import Buffer, Files
from engine.durability.records import Damaged

FORMAT = "curlgrad snapshot 1"
_NAME = re.compile(r"([A-Za-z0-9_-]+)\.(\d+)\.safetensors")
_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 1 << 30
_INTEGER, _TENSOR = 1, 3
_SMALL = 2048
_DTYPES = {
    "|b1": ("BOOL", []),
    "|u1": ("U8", []),
    "|i1": ("I8", []),
    "<i2": ("I16", []),
    "<u2": ("BF16", []),  # the engine keeps bfloat16 as its bits, and has no uint16
    "<i4": ("I32", []),
    "<i8": ("I64", []),
    "<f2": ("F16", []),
    "<f4": ("F32", []),
    "<f8": ("F64", []),
    "<c8": ("F32", [2]),
    "<c16": ("F64", [2]),
}


@dataclass(slots=True, frozen=True)
class Snapshot:
    """A snapshot's file, and what it says of itself."""

    path: Path
    session: str
    n: int
    lsn: int
    size: int
    about: dict[str, Any]


def path_of(folder: Path, session: str, n: int) -> Path:
    """Where the snapshot of a session after its record `n` is."""
    return folder / f"{session}.{n}.safetensors"


def named(path: Path) -> tuple[str, int] | None:
    """The session and n of a snapshot's file name."""
    match = _NAME.fullmatch(path.name)
    return (match[1], int(match[2])) if match else None


def write(path: Path, files: Files, about: dict[str, Any], rows: dict[str, Any]) -> Snapshot:
    """Writes a snapshot; returns when the disk has it. Raises OSError, and leaves nothing then."""
    tensors: list[tuple[str, str, list[int], Buffer]] = []
    commit = dict(rows["commit"])
    commit["storages"] = [{**row, "data": _storage(row, tensors)} for row in commit["storages"]]

    def extend(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.nbytes <= _SMALL:
                return value.tobytes()
            name = f"a{len(tensors)}"
            tensors.append((name, "U8", [value.nbytes], value))
            return msgpack.ExtType(_TENSOR, name.encode())
        if isinstance(value, int):
            size = (value.bit_length() + 8) // 8
            return msgpack.ExtType(_INTEGER, value.to_bytes(size, "little", signed=True))
        raise TypeError(f"a snapshot cannot hold a {type(value).__name__}")

    packed = msgpack.packb({**rows, "commit": commit}, default=extend, unicode_errors="surrogatepass")
    tensors.append(("rows", "U8", [len(packed)], packed))
    about = {**about, "crc": {name: zlib.crc32(data) for name, _, _, data in tensors}}
    told = json.dumps(about)
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "about": told, "crc": str(zlib.crc32(told.encode()))}}
    end = 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_suffix(".tmp")
    files.remove(temporary)
    try:
        file = files.create(temporary)
        try:
            file.write([_LENGTH.pack(len(text)), text, *(data for *_, data in tensors)])
            file.sync()
        finally:
            file.close()
        files.rename(temporary, path)
        files.sync_folder(path.parent)
    except OSError:
        files.remove(temporary)
        raise
    return Snapshot(path, about["session"], about["n"], about["lsn"], _LENGTH.size + len(text) + end, about)


def _storage(row: dict[str, Any], tensors: list[tuple[str, str, list[int], Buffer]]) -> Any:
    dtype, last = _DTYPES[row["dtype"]]
    name = f"s{row['uid']}"
    shape = [len(row["data"]) // np.dtype(row["dtype"]).itemsize, *last]
    tensors.append((name, dtype, shape, row["data"]))
    return msgpack.ExtType(_TENSOR, name.encode())


# ---------------------------------------------------------------- reading


def _header(data: memoryview) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The header, what the file says of itself, and where its tensors begin. Raises Damaged."""
    if len(data) < _LENGTH.size:
        raise Damaged("a snapshot that is cut short")
    (size,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + size
    if size > _MAX_HEADER or start > len(data):
        raise Damaged("a snapshot whose header is cut short")
    try:
        header = json.loads(bytes(data[_LENGTH.size : start]))
        metadata = header.pop("__metadata__")
        told = metadata["about"]
        if metadata["format"] != FORMAT:
            raise Damaged(f"a snapshot of another format: {metadata['format']!r:.100}")
        if str(zlib.crc32(told.encode())) != metadata["crc"]:
            raise Damaged("a snapshot whose header is not as it was written")
        return header, json.loads(told), start
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged("a snapshot whose header cannot be read") from error


def open_snapshot(path: Path, files: Files) -> Snapshot:
    """What a snapshot says of itself; its tensors stay unread. Raises Damaged."""
    with files.mapped(path) as data:
        _, about, _ = _header(data)
        size = len(data)
    if named(path) != (about["session"], about["n"]):
        raise Damaged("a snapshot under another's name")
    return Snapshot(path, about["session"], about["n"], about["lsn"], size, about)


@contextmanager
def opened(snapshot: Snapshot, files: Files) -> Iterator[dict[str, Any]]:
    """The rows of a snapshot; their arrays are views of the file, and must be copied before the end. Raises Damaged."""
    with files.mapped(snapshot.path) as data:
        header, about, start = _header(data)
        found: dict[str, memoryview] = {}
        for name, crc in about["crc"].items():
            try:
                low, high = header[name]["data_offsets"]
                found[name] = data[start + low : start + high]
            except (KeyError, TypeError, ValueError) as error:
                raise Damaged(f"the snapshot lacks {name}") from error
            if zlib.crc32(found[name]) != crc:
                raise Damaged(f"{name} in the snapshot is not as it was written")

        def extension(code: int, packed: bytes) -> Any:
            if code == _INTEGER:
                return int.from_bytes(packed, "little", signed=True)
            if code == _TENSOR:
                return found[packed.decode()]
            raise Damaged(f"unknown extension {code}")

        yield msgpack.unpackb(found["rows"], ext_hook=extension, strict_map_key=False, unicode_errors="surrogatepass")
