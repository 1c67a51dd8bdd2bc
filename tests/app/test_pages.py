"""The documentation pages: files, policies, caching, and what was vendored. How they look and act: tests/browser."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import tarfile
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.pages import vendor
from app.pages.assets import STATIC, Assets
from engine.errors import NotFound
from tests.app.conftest import FakeService

PAGES = ("/docs", "/redoc")
OWN = sorted(path for path in STATIC.rglob("*") if path.is_file() and "vendor" not in path.relative_to(STATIC).parts)


class Client:
    """Asks an application without a server: each request in a loop of its own."""

    def __init__(self) -> None:
        self.application = create_app(service=FakeService())  # type: ignore[arg-type]

    def __call__(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return asyncio.run(self._send(method, path, {name.replace("_", "-"): text for name, text in headers.items()}))

    async def _send(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, headers=headers)


@pytest.fixture(scope="module")
def ask() -> Client:
    return Client()


def files_of(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="(docs/assets/[^"]+)"', page)


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_html_under_a_strict_policy(ask: Client, path: str) -> None:
    response = ask(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    # What the policy forbids is not tried: neither scripts nor styles stand in the page itself.
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", response.text)


@pytest.mark.parametrize("path", PAGES)
def test_the_files_of_a_page_are_there_for_good(ask: Client, path: str) -> None:
    files = files_of(ask(path).text)
    assert len(files) > 3
    for file in files:
        response = ask(f"/{file}")
        assert response.status_code == 200, file
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        expected = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[file.rpartition(".")[2]]
        assert response.headers["content-type"].partition(";")[0] == expected


def test_a_page_is_asked_for_again_and_not_sent_again(ask: Client) -> None:
    first = ask("/docs")
    assert first.headers["cache-control"] == "no-cache"
    assert ask("/docs", If_None_Match=first.headers["etag"]).status_code == 304
    assert ask("/docs", "HEAD").content == b""


def test_the_styles_that_redoc_makes_are_admitted_for_one_answer_only(ask: Client) -> None:
    nonces = set()
    for _ in range(2):
        response = ask("/redoc")
        (nonce,) = re.findall(r'<meta property="csp-nonce" content="([\w-]{20,})">', response.text)
        assert f"style-src 'self' 'nonce-{nonce}';" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"
        nonces.add(nonce)
    assert len(nonces) == 2


def test_addresses_are_relative_so_that_the_pages_work_below_any_path(ask: Client) -> None:
    for path in PAGES:
        for address in re.findall(r'(?:href|src)="([^"]*)"', ask(path).text):
            assert re.match(r"(docs|redoc|openapi|#)", address), address


# ---------------------------------------------------------------- files


def test_another_versions_address_is_not_answered(ask: Client) -> None:
    good = files_of(ask("/docs").text)[0]
    version = good.split("/")[2]
    response = ask("/" + good.replace(version, "0" * len(version)))
    assert (response.status_code, response.json()["code"]) == (404, "no-such-file")
    assert "cache-control" in response.headers
    assert "immutable" not in response.headers["cache-control"]


@pytest.mark.parametrize(
    "name", ["none.js", "docs.html", "../assets.py", "%2e%2e/assets.py", "/etc/passwd", "vendor", ""]
)
def test_nothing_else_is_served(ask: Client, name: str) -> None:
    version = Assets().version
    assert ask(f"/docs/assets/{version}/{name}").status_code == 404
    with pytest.raises(NotFound):
        Assets().file(version, name)


def test_large_files_are_compressed(ask: Client) -> None:
    address = next(f for f in files_of(ask("/docs").text) if f.endswith("swagger-ui-bundle.js"))
    zipped = ask(f"/{address}", Accept_Encoding="gzip")
    assert zipped.headers["content-encoding"] == "gzip"
    assert int(zipped.headers["content-length"]) < len(zipped.content) / 3
    plain = ask(f"/{address}", Accept_Encoding="identity")
    assert "content-encoding" not in plain.headers
    assert plain.content == zipped.content


def test_browsers_find_an_icon_where_they_look_for_it(ask: Client) -> None:
    response = ask("/favicon.ico")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/svg+xml")


def test_the_version_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    first = Assets(tmp_path).version
    assert Assets(tmp_path).version == first
    (tmp_path / "a.js").write_text("2")
    second = Assets(tmp_path).version
    (tmp_path / "a.js").rename(tmp_path / "b.js")
    assert len({first, second, Assets(tmp_path).version}) == 3


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_our_files_name_no_other_host_and_refer_to_files_that_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    hosts = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", text))
    # A namespace is a name, and what is matched in a selector is nothing that is asked for.
    assert hosts <= {"http://www.w3.org/2000/svg", "https://redocly.com/redoc/"}
    for target in re.findall(r'(?:from|url\()\s*"(\.?[^"]+)"', text):
        assert (path.parent / target).is_file(), target


# ---------------------------------------------------------------- what was vendored


def test_the_inventory_tells_what_is_there() -> None:
    assert (vendor.TARGET / "VENDORED.md").read_text(encoding="utf-8") == vendor.inventory()
    listed = {vendor.TARGET / p.folder / name for p in vendor.PACKAGES for name in p.members.values()}
    there = {path for path in vendor.TARGET.rglob("*") if path.is_file()}
    assert there == listed | {vendor.TARGET / "VENDORED.md"}


def test_each_package_comes_with_its_licence() -> None:
    for package in vendor.PACKAGES:
        text = (vendor.TARGET / package.folder / "LICENSE.txt").read_text(encoding="utf-8")
        assert {"Apache-2.0": "Apache License", "MIT": "MIT License"}[package.licence] in text


def test_vendored_files_call_nobody() -> None:
    for package in vendor.PACKAGES:
        for member, edits in package.edits.items():
            text = (vendor.TARGET / package.folder / package.members[member]).read_text(encoding="utf-8")
            for old in edits:
                assert old not in text
        for member, cuts in package.cuts.items():
            body = (vendor.TARGET / package.folder / package.members[member]).read_bytes()
            for cut in cuts:
                assert cut.instead.encode() in body
                found = re.findall(cut.pattern.encode(), body)
                assert found in ([], [cut.instead.encode()])


@pytest.mark.parametrize("body, times", [(b"none", 0), (b"x=1;x=2", 2)])
def test_a_cut_that_does_not_fit_once_is_refused(body: bytes, times: int) -> None:
    with pytest.raises(ValueError, match=f"{times} were found"):
        vendor.applied(vendor.Cut("a number", r"x=\d", "x=0"), body, "a.js")


def test_a_cut_is_made() -> None:
    assert vendor.applied(vendor.Cut("a number", r"x=\d", "x=0"), b"a;x=1;b", "a.js") == b"a;x=0;b"


def archive(path: Path, members: dict[str, bytes]) -> vendor.Package:
    with tarfile.open(path, "w:gz") as file:
        for name, body in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(body)
            file.addfile(info, io.BytesIO(body))
    digest = hashlib.sha512(path.read_bytes()).digest()
    return vendor.Package(
        "one", "1.0.0", "MIT", vendor.integrity(digest), "one", {"a.js": "b.js"}, {"a.js": {"x": "y"}}
    )


def test_a_package_is_taken_apart_with_the_changes_that_are_named(tmp_path: Path) -> None:
    package = archive(tmp_path / "one.tgz", {"a.js": b"axa", "other": b""})
    vendor.unpack(package, tmp_path / "one.tgz", tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out/one").iterdir()} == {"b.js": b"aya"}


def test_a_package_that_is_another_than_expected_is_refused(tmp_path: Path) -> None:
    package = archive(tmp_path / "one.tgz", {"a.js": b"axa"})
    archive(tmp_path / "two.tgz", {"a.js": b"axaa"})
    with pytest.raises(ValueError, match=r"two.tgz is not one 1\.0\.0"):
        vendor.unpack(package, tmp_path / "two.tgz", tmp_path / "out")


def test_a_change_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    package = archive(tmp_path / "one.tgz", {"a.js": b"aaa"})
    with pytest.raises(ValueError, match="has no 'x' to replace"):
        vendor.unpack(package, tmp_path / "one.tgz", tmp_path / "out")
