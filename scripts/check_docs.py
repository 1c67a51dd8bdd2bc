"""Check the documents: `make lint` runs it, and it ends with status 1 where something is wrong.

For every Markdown file of the repository:
  - each relative link leads to a file that is there, and its `#anchor` to a heading of that file;
  - each fence is closed and says its language, and what says `json` is JSON;
  - JSON bodies in `curl ... -d '...'` are JSON;
  - the document can be reached from README.md by following links.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
START = "README.md"

_FENCE = re.compile(r"^\s{0,3}(`{3,}|~{3,})\s*(\S*)")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_CODE = re.compile(r"`+[^`]*`+")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_CURL_BODY = re.compile(r"(?:-d|--data|--json)\s+'(\{[^']*\})'")


@dataclass
class Page:
    """What one document holds; line numbers count from 1."""

    links: list[tuple[int, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    fences: list[tuple[int, str, str]] = field(default_factory=list)  # line, language, text
    unclosed: int | None = None


def slug(heading: str, taken: set[str]) -> str:
    """The anchor that code hosts give a heading; a second one of the same words gets a number."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
    numbered = name
    count = 0
    while numbered in taken:
        count += 1
        numbered = f"{name}-{count}"
    return numbered


def parse(text: str) -> Page:
    """Read links, anchors and fences; what stands in a fence or in backticks is no link."""
    page = Page()
    open_fence, language, first, body = "", "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if open_fence:
            if fence and fence[1].startswith(open_fence) and not fence[2]:
                page.fences.append((first, language, body))
                open_fence = ""
            else:
                body += line + "\n"
        elif fence:
            open_fence, language, first, body = fence[1], fence[2], number, ""
        else:
            if heading := _HEADING.match(line):
                page.anchors.add(slug(heading[1], page.anchors))
            page.links += [(number, target) for target in _LINK.findall(_CODE.sub("", line))]
    page.unclosed = first if open_fence else None
    return page


def _wrong_fences(page: Page) -> Iterator[tuple[int, str]]:
    if page.unclosed:
        yield page.unclosed, "a fence that is never closed"
    for number, language, body in page.fences:
        if not language:
            yield number, "a fence that does not say its language (`text` for none)"
        bodies = [body] if language == "json" else _CURL_BODY.findall(body) if language == "sh" else []
        for candidate in bodies:
            try:
                json.loads(candidate)
            except ValueError as error:
                yield number, f"not JSON: {error}"


def _wrong_links(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[tuple[int, str]]:
    for number, target in page.links:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / unquote(name)).resolve() if name else path
        if not there.exists():
            yield number, f"leads nowhere: {target}"
        elif anchor and there in pages and anchor not in pages[there].anchors:
            yield number, f"no such heading: {target}"


def reachable(pages: dict[Path, Page], start: Path) -> set[Path]:
    """Every document that links lead to from `start`, itself included. A link to a folder reaches its README.md."""
    found: set[Path] = set()
    ahead = [start]
    while ahead:
        path = ahead.pop()
        if path in found or path not in pages:
            continue
        found.add(path)
        for _, target in pages[path].links:
            there = (path.parent / unquote(target.partition("#")[0])).resolve()
            ahead.append(there / START if there.is_dir() else there)
    return found


def documents(root: Path) -> list[Path]:
    """Every Markdown file of the project: none in a folder that starts with a dot, or that holds others' work."""
    return sorted(
        path
        for path in root.rglob("*.md")
        if not any(part.startswith(".") or part in ("node_modules", "vendor") for part in path.relative_to(root).parts)
    )


def check(root: Path) -> list[str]:
    """All that is wrong with the documents under `root`, as `file:line: what`."""
    root = root.resolve()
    pages = {path: parse(path.read_text("utf-8")) for path in documents(root)}
    wrong = [
        f"{path.relative_to(root)}:{number}: {what}"
        for path, page in pages.items()
        for number, what in sorted([*_wrong_fences(page), *_wrong_links(path, page, pages)])
    ]
    lost = sorted(set(pages) - reachable(pages, root / START))
    return wrong + [f"{path.relative_to(root)}:1: no link leads here from {START}" for path in lost]


def main() -> int:
    """Print what is wrong; the exit status."""
    wrong = check(ROOT)
    print("\n".join(wrong) or f"{len(documents(ROOT))} documents: links, fences and examples hold.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
