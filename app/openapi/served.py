"""Bytes that do not change while the server runs: compressed once, tagged, not sent again to those who have them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property

from fastapi import Request, Response


@dataclass(frozen=True)
class Served:
    """A body with its media type and the headers it is served with."""

    body: bytes
    media_type: str
    cache_control: str = "no-cache"
    compress: bool = True

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:20]

    @cached_property
    def compressed(self) -> bytes | None:
        """The gzip form, the same bytes every time; None where it would not be smaller."""
        if not self.compress:
            return None
        found = gzip.compress(self.body, compresslevel=9, mtime=0)
        return found if len(found) < len(self.body) else None

    def reply(self, request: Request, **headers: str) -> Response:
        """The answer to a GET or HEAD; `headers` are added (`_` for `-`)."""
        zipped = self.compressed if _accepts_gzip(request.headers.get("accept-encoding", "")) else None
        # Two encodings are two representations, so each has its own strong validator.
        etag = f'"{self.digest}-gz"' if zipped else f'"{self.digest}"'
        told = {
            "ETag": etag,
            "Cache-Control": self.cache_control,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if _matches(request.headers.get("if-none-match", ""), self.digest):
            return Response(status_code=304, headers=told)
        if zipped:
            told["Content-Encoding"] = "gzip"
        return Response(zipped or self.body, media_type=self.media_type, headers=told)


def _accepts_gzip(header: str) -> bool:
    """Whether `Accept-Encoding` admits gzip: named without q=0, or covered by `*`."""
    quality: dict[str, bool] = {}
    for item in header.lower().split(","):
        coding, _, weight = item.partition(";")
        quality[coding.strip()] = weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return quality.get("gzip", quality.get("*", False))


def _matches(header: str, digest: str) -> bool:
    """Whether `If-None-Match` names these bytes, in either encoding (the comparison is the weak one)."""
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")}
    return bool(tags & {digest, f"{digest}-gz", "*"})
