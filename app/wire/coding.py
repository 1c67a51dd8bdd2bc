"""Content codings: answers of digits sent in about half of their bytes, to those who take them so (RFC 9110, 12.5.3).

gzip at its lowest level: of the digits of a float32 tensor it leaves 0.48 at some 100 MB/s, and pays on links of less
than about 500 Mbit/s; level 6 leaves 0.44 at a twentieth of that speed. zstd where the interpreter has it (Python
3.14). Forms that are a tensor's bytes are never coded: what training makes of them does not shrink.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache

SMALLEST = 8192  # bytes: a coded answer below this spares two packets at best
_LEVEL = 1
_GZIP = 31  # zlib's name for the gzip format with its largest window
_DIGITS = frozenset(("application/json", "text/csv", "text/plain", "text/vnd.graphviz"))


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def _codings() -> Mapping[str, Callable[[bytes], bytes]]:
    """What can be written here, the best first."""
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        return {"gzip": _gzip}
    return {"zstd": lambda body: bytes(zstd.compress(body, _LEVEL)), "gzip": _gzip}


CODINGS = _codings()


@lru_cache(maxsize=256)
def choose(accepted: str | None) -> str | None:
    """The coding for an `Accept-Encoding`; None where the body goes as it is."""
    if accepted is None:
        return None
    quality: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        key, _, number = weight.partition("=")
        try:
            quality[name.strip()] = float(number) if key.strip() == "q" else 1.0
        except ValueError:
            quality[name.strip()] = 0.0
    best = max(CODINGS, key=lambda name: quality.get(name, quality.get("*", 0.0)))
    given = quality.get(best, quality.get("*", 0.0))
    return best if given > 0 and given >= quality.get("identity", 0.0) else None


def worthwhile(media_type: str, length: int) -> bool:
    """Whether an answer of this type and length is coded for those who take it so."""
    return length >= SMALLEST and media_type.partition(";")[0] in _DIGITS


def encode(body: bytes, coding: str) -> bytes | None:
    """The body in that coding; None where it would be no shorter."""
    coded = CODINGS[coding](body)
    return coded if len(coded) < len(body) else None


def uncoded(tag: str) -> str:
    """An ETag without the mark of a coding: two codings of a form are two representations with a tag each."""
    for name in CODINGS:
        tag = tag.removesuffix(f'-{name}"') + '"' if tag.endswith(f'-{name}"') else tag
    return tag
