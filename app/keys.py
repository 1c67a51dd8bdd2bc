"""API keys: who may call, and what for. The file holds digests, never keys; a key is shown once, when it is made.

A key is `cg_<id>_<secret>`: the id finds the record, the secret (256 random bits) proves it. Because the secret is
random and long, one round of SHA-256 protects it as well as a slow hash would protect a password, and a call costs
microseconds. The digest is compared in constant time, and for an unknown id with a digest of nothing.

On disk, `keys.json`, mode 0600, replaced as a whole:

    {"format": 1, "keys": [{"id", "owner", "name", "sha256", "scopes": [...], "created", "expires": s or null,
                            "revoked": s or null}]}

Times are seconds since 1970. `owner` is whose sessions the key reaches: its own id, or another key's owner, so that a
key can be replaced without losing what it made.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
SCOPES = ("read", "write", "metrics", "admin")
PREFIX = "cg_"
LOOK_AGAIN_S = 1.0  # how long a key that was made or revoked may take to count
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no l, o, 0, 1: ids are read aloud
_KEY = re.compile(r"cg_([a-z0-9]{10})_([A-Za-z0-9_-]{43})")
_NOTHING = hashlib.sha256(b"").hexdigest()


class BadKeysFile(ValueError):
    """A file of keys that cannot be read; says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key's record. `expires`, `revoked`: seconds since 1970, or None."""

    id: str
    owner: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None = None
    revoked: float | None = None

    def may(self, scope: str) -> bool:
        """Whether the key has the scope; `admin` has every one."""
        return scope in self.scopes or "admin" in self.scopes

    def shown(self) -> dict[str, Any]:
        """What may be shown of it."""
        return {
            "id": self.id,
            "owner": self.owner,
            "name": self.name,
            "scopes": list(self.scopes),
            "created": self.created,
            "expires": self.expires,
            "revoked": self.revoked,
        }


# ---------------------------------------------------------------- the file


def read(path: Path) -> dict[str, Key]:
    """The keys of a file by id; none where there is no file. Raises BadKeysFile."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeysFile(f"{path}: {error}") from error
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise BadKeysFile(f"{path}: format {document['format']!r} is none that this version reads ({FORMAT})")
        keys = [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in document["keys"]]
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, BadKeysFile):
            raise
        raise BadKeysFile(f"{path}: this is no file of keys: {error}") from error
    for key in keys:
        if set(key.scopes) - set(SCOPES) or not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
            raise BadKeysFile(f"{path}: key {key.id} has scopes or a digest that cannot be")
    return {key.id: key for key in keys}


def _write(path: Path, keys: dict[str, Key]) -> None:
    """Replace the file as a whole; it is on the disk on return."""
    document = {"format": FORMAT, "keys": [asdict(key) for key in keys.values()]}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".keys-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One change of the file at a time, across processes. Windows has no fcntl: there the last one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---------------------------------------------------------------- changing it


def create(
    path: Path,
    names: Sequence[str],
    scopes: Sequence[str],
    *,
    owner: str | None = None,
    expires: float | None = None,
    now: float | None = None,
) -> list[tuple[Key, str]]:
    """New keys, each with the text that its holder sends: the only time that it can be had. Raises BadKeysFile."""
    at = time.time() if now is None else now
    made = []
    with _locked(path):
        keys = read(path)
        for name in names:
            key_id = _new_id(keys)
            text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            keys[key_id] = Key(key_id, owner or key_id, name, digest, tuple(scopes), at, expires)
            made.append((keys[key_id], text))
        _write(path, keys)
    return made


def _new_id(keys: dict[str, Key]) -> str:
    while True:
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(10))
        if key_id not in keys:
            return key_id


def revoke(path: Path, ids: Sequence[str], now: float | None = None) -> list[Key]:
    """Those keys count no more. May be repeated. Raises KeyError with an unknown id, and then nothing changed."""
    at = time.time() if now is None else now
    with _locked(path):
        keys = read(path)
        for key_id in ids:
            if key_id not in keys:
                raise KeyError(key_id)
        for key_id in ids:
            key = keys[key_id]
            keys[key_id] = Key(**{**asdict(key), "scopes": key.scopes, "revoked": key.revoked or at})
        _write(path, keys)
        return [keys[key_id] for key_id in ids]


# ---------------------------------------------------------------- asking it


@dataclass(frozen=True, slots=True)
class Known:
    """What a server knows of its keys: whether callers need one, and those that it has seen."""

    closed: bool
    keys: Mapping[str, Key]

    def to_data(self) -> dict[str, Any]:
        return {"closed": self.closed, "keys": [asdict(key) for key in self.keys.values()]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Known:
        keys = [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in data["keys"]]
        return cls(data["closed"], {key.id: key for key in keys})


class Keys:
    """The keys that a server goes by: read at the start, and again when the file has changed.

    There is a door to lock once a file of keys has been seen, even an empty one; it is not opened again when the file
    goes away or cannot be read: the keys that were known then go on to count. `before`: what the server knows when this
    process is only one of its fronts.
    """

    def __init__(self, path: Path | None, clock: Any = time, before: Known | None = None) -> None:
        self.path = path
        self.problem: str | None = None
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._seen: tuple[int, int, int] | None = None
        self._next_look = 0.0
        self.closed = False
        self._state = object()
        if before is None:
            if path is not None:
                self._seen = _stamp(path)
                self._keys = read(path)
                self.closed = self._seen is not None
            return
        self.closed, self._keys = before.closed, dict(before.keys)
        self.refresh()

    def known(self) -> Known:
        """What another process that is started later has to know, should the file be gone by then."""
        return Known(self.closed, self._keys)

    @property
    def state(self) -> object:
        """Another object whenever it may count otherwise what a key is, or whether one is needed; time apart."""
        return self._state

    def expired(self, key: Key) -> bool:
        """Whether a key that counted once counts no more because its time is over."""
        return key.expires is not None and bool(key.expires <= self._clock.time())

    def refresh(self) -> None:
        """Look whether the file has changed, at most once in `LOOK_AGAIN_S`."""
        if self.path is None or self._clock.monotonic() < self._next_look:
            return
        self._next_look = self._clock.monotonic() + LOOK_AGAIN_S
        stamp = _stamp(self.path)
        if stamp == self._seen or stamp is None:
            return
        try:
            self._keys = read(self.path)
        except BadKeysFile as error:
            self.problem = str(error)
        else:
            self.problem = None
            self._seen = stamp
        self.closed = True
        self._state = object()

    def find(self, text: str) -> tuple[Key | None, str | None]:
        """(the key, None) for a key that counts; (None or the key, why it does not) for any other."""
        match = _KEY.fullmatch(text)
        key = self._keys.get(match[1]) if match else None
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        if not hmac.compare_digest(digest, key.sha256 if key else _NOTHING) or key is None:
            return None, "unknown"
        if key.revoked is not None:
            return key, "revoked"
        if key.expires is not None and key.expires <= self._clock.time():
            return key, "expired"
        return key, None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
