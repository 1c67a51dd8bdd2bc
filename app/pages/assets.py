"""The pages' own files: read once, named by what is in them, and kept by browsers for as long as they like."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from app.openapi.served import Served
from engine.errors import NotFound

STATIC = Path(__file__).parent / "static"
_FOREVER = "public, max-age=31536000, immutable"
# Not left to the machine's own table, which may lack or differ on any of them.
_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".txt": "text/plain",
}


class Assets:
    """The files under `root`. In pages (`*.html`), `{version}` stands for the digest of all files, `{note}` for `note`.

    `note` is HTML that every page shows.
    """

    def __init__(self, root: Path = STATIC, note: str = "") -> None:
        self._note = note
        self._files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
        self._served: dict[str, Served] = {}

    @cached_property
    def version(self) -> str:
        """A digest of all names and bytes. It stands in the addresses, so that what is at an address never changes."""
        digest = hashlib.sha256()
        for name, path in self._files.items():
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()[:16]

    def page(self, name: str) -> Served:
        """The page with the addresses of its files filled in; browsers ask each time whether it has changed."""
        if name not in self._served:
            text = self._files[name].read_text(encoding="utf-8")
            body = text.replace("{version}", self.version).replace("{note}", self._note)
            self._served[name] = Served(body.encode(), "text/html")
        return self._served[name]

    def file(self, version: str, name: str) -> Served:
        """The file, for good. Raises NotFound, also for another version's address: its bytes may have been others."""
        if version != self.version or name not in self._files or name.endswith((".html", ".md")):
            raise NotFound(f"no such file: {name}", code="no-such-file")
        if name not in self._served:
            suffix = Path(name).suffix
            self._served[name] = Served(self._files[name].read_bytes(), _TYPES.get(suffix, "text/plain"), _FOREVER)
        return self._served[name]
