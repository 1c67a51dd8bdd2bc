"""What `python -m app` does beside serving: `python -m app keys create|list|revoke`."""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from app import keys
from app import settings as options
from app.keys import SCOPES, BadKeysFile, Key
from app.settings import keys_file

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _duration(text: str) -> float:
    """`90d`, `12h` in seconds."""
    match = re.fullmatch(r"(\d+)([mhdw])", text.strip())
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 12h, 90d or 4w")
    return float(int(match[1]) * _UNITS[match[2]])


def _scopes(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for scope in found:
        if scope not in SCOPES:
            raise argparse.ArgumentTypeError(f"{scope!r} is none of {', '.join(SCOPES)}")
    if not found:
        raise argparse.ArgumentTypeError("a key needs at least one scope")
    return tuple(dict.fromkeys(found))


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def keys_parser() -> argparse.ArgumentParser:
    """`python -m app keys`."""
    made = argparse.ArgumentParser(
        prog="python -m app keys",
        description="Make, list and revoke the keys that callers send as `Authorization: Bearer KEY`. "
        "A running server takes a change within a second.",
    )
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--data-dir", type=Path, default=None, metavar="DIR", help="where keys.json lies [CURLGRAD_DATA_DIR]"
    )
    where.add_argument(
        "--keys-file", type=Path, default=None, metavar="FILE", help="the file itself [CURLGRAD_KEYS_FILE]"
    )
    words = made.add_subparsers(dest="word", required=True, metavar="create | list | revoke")
    create = words.add_parser("create", parents=[where], help="make a key, or many; each is shown once")
    create.add_argument("--name", default="key", help="whose it is, for people; with --count, numbers are added")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=("read", "write"),
        metavar="LIST",
        help=f"of {', '.join(SCOPES)} (default read,write)",
    )
    create.add_argument(
        "--expires", type=_duration, default=None, metavar="TIME", help="12h, 90d, 4w; never when not given"
    )
    create.add_argument(
        "--owner", default=None, metavar="ID", help="reach what this owner's keys reach: to replace a key"
    )
    create.add_argument("--count", type=_count, default=1, metavar="N", help="how many, for a class")
    create.add_argument("--csv", action="store_true", help="write name,id,key,scopes,expires as CSV")
    shown = words.add_parser("list", parents=[where], help="all keys, without their secrets")
    shown.add_argument("--csv", action="store_true", help="as CSV")
    revoke = words.add_parser("revoke", parents=[where], help="those keys count no more")
    revoke.add_argument("ids", nargs="+", metavar="ID")
    return made


def run_keys(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """The exit status: 0, or 1 where it could not be done."""
    given = keys_parser().parse_args(arguments)
    known = options.read([], environment)
    path = given.keys_file or (given.data_dir / "keys.json" if given.data_dir else keys_file(known))
    if path is None:
        print("python -m app keys: error: say --data-dir or --keys-file: keys outlive the server", file=sys.stderr)
        return 1
    do: Mapping[str, Callable[[argparse.Namespace, Path], int]] = {"create": _create, "list": _list, "revoke": _revoke}
    try:
        return do[given.word](given, path)
    except (BadKeysFile, OSError) as error:
        print(f"python -m app keys: error: {error}", file=sys.stderr)
        return 1


def _create(given: argparse.Namespace, path: Path) -> int:
    if given.owner is not None and given.owner not in {key.owner for key in keys.read(path).values()}:
        print(f"python -m app keys: error: no key has the owner {given.owner!r}", file=sys.stderr)
        return 1
    width = len(str(given.count))
    names = [given.name if given.count == 1 else f"{given.name}-{i:0{width}}" for i in range(1, given.count + 1)]
    expires = None if given.expires is None else time.time() + given.expires
    made = keys.create(path, names, given.scopes, owner=given.owner, expires=expires)
    if given.csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(("name", "id", "key", "scopes", "expires"))
        table.writerows((k.name, k.id, text, " ".join(k.scopes), _when(k.expires, "")) for k, text in made)
    else:
        for _, text in made:
            print(text)
        print(f"Kept in {path} as digests: what is not copied now cannot be had again.", file=sys.stderr)
    return 0


def _list(given: argparse.Namespace, path: Path) -> int:
    head = ("id", "name", "scopes", "owner", "created", "expires", "state")
    rows = [
        (k.id, k.name, " ".join(k.scopes), k.owner, _when(k.created), _when(k.expires, "never"), _state(k))
        for k in keys.read(path).values()
    ]
    if given.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows((head, *rows))
        return 0
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _revoke(given: argparse.Namespace, path: Path) -> int:
    try:
        keys.revoke(path, given.ids)
    except KeyError as error:
        print(f"python -m app keys: error: there is no key {error.args[0]!r}; nothing was revoked", file=sys.stderr)
        return 1
    return 0


def _when(seconds: float | None, never: str = "") -> str:
    return never if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(key: Key) -> str:
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= time.time() else "good"
