"""Takes Swagger UI and Redoc out of their published packages into `static/vendor`, so that the pages need no network.

    npm pack swagger-ui-dist@5.35.0 redoc@3.0.1
    python -m app.pages.vendor swagger-ui-dist-5.35.0.tgz redoc-3.0.1.tgz

To move to another version: change it here with its integrity (`npm view NAME@VERSION dist.integrity`), run the lines
above and `make test-browser`, which knows what the pages rely on.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from app.pages.assets import STATIC

TARGET = STATIC / "vendor"


@dataclass(frozen=True)
class Cut:
    """A change to a file of others: what it takes out, in words; a pattern; and what stands in its place."""

    what: str
    pattern: str
    instead: str


@dataclass(frozen=True)
class Package:
    """What is taken out of a package: member -> name here, and the edits (member -> what is replaced by what).

    `cuts`: member -> what else is changed, each by a pattern that fits once.
    """

    name: str
    version: str
    licence: str
    integrity: str
    folder: str
    members: dict[str, str]
    edits: dict[str, dict[str, str]] = field(default_factory=dict)
    cuts: dict[str, tuple[Cut, ...]] = field(default_factory=dict)


# Redoc offers to hand the page on to services of others, whose addresses these are.
HANDING_ON = (
    Cut("the addresses of services that a page could be handed to", r"mye=\{[^{}]*\}", "mye={}"),
    Cut("the entries of the menu that hand a page on", r"let f=\[u,.*?\]\.map\(", "let f=[u].map("),
    Cut(
        "the address at which a service could be told of this server",
        r"return`https://[^`]*add-custom-connector[^`]*`",
        "return`data:,`",
    ),
)

PACKAGES = (
    Package(
        "swagger-ui-dist",
        "5.35.0",
        "Apache-2.0",
        "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        "swagger-ui",
        {
            "swagger-ui-bundle.js": "swagger-ui-bundle.js",
            "swagger-ui-bundle.js.LICENSE.txt": "swagger-ui-bundle.js.LICENSE.txt",
            "swagger-ui.css": "swagger-ui.css",
            "LICENSE": "LICENSE.txt",
            "NOTICE": "NOTICE.txt",
        },
        # The map is not taken along.
        {"swagger-ui.css": {"\n/*# sourceMappingURL=swagger-ui.css.map*/": "\n"}},
    ),
    Package(
        "redoc",
        "3.0.1",
        "MIT",
        "sha512-KDfoKaYW19LCl4YStgBnwlaNjYEFfs5zCNt1s1WZ2YM5u8d26Yuzd2l43fZO851ZsgIMe/D640fDJkD8eaRQKQ==",
        "redoc",
        {"bundles/redoc.standalone.js": "redoc.standalone.js", "LICENSE": "LICENSE.txt"},
        # A documentation page calls nobody: neither for a logo nor for statistics, nor with the reader's text.
        {
            "bundles/redoc.standalone.js": {
                "https://cdn.redoc.ly/redoc/logo-mini-full.svg": "data:,",
                "https://cdn.redoc.ly/redoc/logo-mini.svg": "data:,",
                "https://cdn.redocly.com/icons/fa/7.0.0": "data:,",
                "https://cdn.redocly.com/icons/code/5.24.0": "data:,",
                "https://otel.cloud.redocly.com/v1/traces": "data:,",
            }
        },
        {"bundles/redoc.standalone.js": HANDING_ON},
    ),
)


def unpack(package: Package, archive: Path, target: Path = TARGET) -> None:
    """Write the package's files under `target`. Raises ValueError for another archive, or an edit that does not fit."""
    found = integrity(hashlib.sha512(archive.read_bytes()).digest())
    if found != package.integrity:
        raise ValueError(f"{archive} is not {package.name} {package.version}: {found}")
    folder = target / package.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as members:
        for member, name in package.members.items():
            source = members.extractfile(f"package/{member}")
            if source is None:
                raise ValueError(f"{archive} has no file {member}")
            body = source.read()
            for old, new in package.edits.get(member, {}).items():
                if old.encode() not in body:
                    raise ValueError(f"{member} has no {old!r} to replace")
                body = body.replace(old.encode(), new.encode())
            for cut in package.cuts.get(member, ()):
                body = applied(cut, body, member)
            (folder / name).write_bytes(body)


def applied(cut: Cut, body: bytes, member: str) -> bytes:
    """The file after the change. Raises ValueError where the pattern does not fit exactly once."""
    changed, times = re.subn(cut.pattern.encode(), lambda _: cut.instead.encode(), body)
    if times != 1:
        raise ValueError(f"{member}: {cut.what} should be there once, and {times} were found")
    return changed


def integrity(sha512: bytes) -> str:
    """A digest as the registry writes it."""
    return "sha512-" + base64.b64encode(sha512).decode()


def inventory() -> str:
    """The text of VENDORED.md: what is here, from where, with which digests and changes."""
    lines = [
        "# Files of others",
        "",
        "Taken out of their published packages by `python -m app.pages.vendor`, which checks the packages' integrity",
        "and makes the changes named here. Their licences lie beside them.",
    ]
    for package in PACKAGES:
        lines += [
            "",
            f"## {package.name} {package.version} ({package.licence})",
            "",
            f"Package: `{package.integrity}`",
            "",
        ]
        lines += ["| file | sha256 |", "| --- | --- |"]
        for name in package.members.values():
            path = TARGET / package.folder / name
            lines.append(f"| {package.folder}/{name} | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |")
        changes = [(old.strip(), new.strip()) for edit in package.edits.values() for old, new in edit.items()]
        lines += [
            "",
            "Changes: "
            + "; ".join(f"`{old}` became `{new}`" if new else f"`{old}` was taken out" for old, new in changes)
            + ".",
        ]
        taken = [cut.what for cuts in package.cuts.values() for cut in cuts]
        if taken:
            lines += ["", f"Taken out: {'; '.join(taken)}."]
    return "\n".join(lines) + "\n"


def main(archives: list[str]) -> None:
    """Unpack all packages, in the order of `PACKAGES`, and write the inventory."""
    if len(archives) != len(PACKAGES):
        raise SystemExit(__doc__)
    for package, archive in zip(PACKAGES, archives, strict=True):
        unpack(package, Path(archive))
    (TARGET / "VENDORED.md").write_text(inventory(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
