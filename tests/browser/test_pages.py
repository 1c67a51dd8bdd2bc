"""The documentation pages in a browser: fast with 650 operations, usable, without a network (`make test-browser`).

The pages stand on Swagger UI's and Redoc's inner workings in places (app/pages/static/plugin.js, vendor.py): this is
what tells whether a new version of them still works that way.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi import FastAPI, Request

from app import openapi, pages
from app.main import create_app
from app.settings import Settings
from tests.browser.chromium import Browser, Page
from tests.fixtures.catalogue import SIZE, generated_catalogue

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIST_SHOWN_S = 3.0
OPERATION_OPENED_S = 1.0
SLACK = 4
TRIES = 3  # the best counts: machines are noisy

Json = dict[str, Any]

LISTED = "document.querySelectorAll('.opblock').length > 10 && document.querySelectorAll('#families a').length > 10"
OPENED = "document.querySelector('.opblock.is-open .responses-wrapper')"


class Server:
    """Serves an application on a port of its own, from a thread."""

    def __init__(self, application: FastAPI) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


class Site(Server):
    """A small application of generated operations; remembers the bodies that it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Json]] = []
        application = FastAPI(title="curlgrad", version="0.1.0", openapi_url=None, docs_url=None, redoc_url=None)
        openapi.install(application, generated_catalogue)
        pages.mount(application)
        application.add_api_route("/v1/ops/{op}", self.run, methods=["POST"])
        super().__init__(application)

    async def run(self, op: str, request: Request) -> Json:
        self.sent.append((op, await request.json()))
        return {"op": op, "result": {"values": [1.0, 2.5]}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.close()


@pytest.fixture(scope="module")
def site(browser: Browser) -> Iterator[Site]:
    with Site() as found:
        yield found


@pytest.fixture(scope="module")
def real(browser: Browser) -> Iterator[Server]:
    """The real application, its worker in this process."""
    with Server(create_app(Settings(workers="inline"))) as found:
        yield found


@pytest.fixture
def fresh(browser: Browser) -> Iterator[Callable[[], Page]]:
    """Makes pages of empty caches. At the end none may have complained, or asked any other host."""
    opened: list[Page] = []

    def make() -> Page:
        opened.append(browser.page())
        return opened[-1]

    yield make
    for page in opened:
        asked = [urlsplit(request["url"]) for request in page.requests()]
        assert {address.hostname for address in asked if address.scheme not in ("data", "blob")} == {"127.0.0.1"}
        assert page.complaints() == []
        page.close()


@pytest.fixture
def docs(fresh: Callable[[], Page], site: Site) -> Page:
    page = fresh()
    page.open(f"{site.address}/docs")
    page.wait(LISTED)
    return page


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(TRIES))


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str, float, float], None]:
    """Writes a figure where whoever runs the tests sees it, and holds it to its limit."""

    def write(what: str, seconds: float, limit: float) -> None:
        with capsys.disabled():
            print(f"\n  {what}: {seconds:.2f} s (goal: {limit:.0f} s)", end="")
        # A shared machine may be this much slower than a desk: a figure over the goal is seen above, and is no failure.
        assert seconds <= SLACK * limit, what

    return write


# ---------------------------------------------------------------- fast


def test_the_list_shows_fast(fresh: Callable[[], Page], site: Site, report: Callable[..., None]) -> None:
    def show(address: str) -> float:
        page = fresh()
        return page.seconds(lambda: page.open(address), LISTED)

    report("/docs shows its list", best(lambda: show(f"{site.address}/docs")), LIST_SHOWN_S)
    report("/docs shows the largest document", best(lambda: show(f"{site.address}/docs#/pointwise-1")), LIST_SHOWN_S)


def test_an_operation_opens_fast(fresh: Callable[[], Page], site: Site, report: Callable[..., None]) -> None:
    def click() -> float:
        page = fresh()
        page.open(f"{site.address}/docs#/pointwise-1")
        page.wait("document.getElementById('operations-pointwise-add')")
        return page.seconds(lambda: page.click("#operations-pointwise-add .opblock-summary-control"), OPENED)

    def search() -> float:
        page = fresh()
        page.open(f"{site.address}/docs")
        page.wait(LISTED)
        page.press("/", 191, "/")
        page.type("nn.functional.conv2d")
        return page.seconds(lambda: page.press("Enter", 13), OPENED)

    report("an operation opens", best(click), OPERATION_OPENED_S)
    report("an operation of another family opens from the search", best(search), OPERATION_OPENED_S)


def test_an_address_of_an_operation_opens_it_fast(
    fresh: Callable[[], Page], site: Site, report: Callable[..., None]
) -> None:
    def follow() -> float:
        page = fresh()
        return page.seconds(lambda: page.open(f"{site.address}/docs#/nn/nn_functional_conv2d"), OPENED)

    report("/docs shows an operation by its address", best(follow), LIST_SHOWN_S + OPERATION_OPENED_S)


# ---------------------------------------------------------------- finding


def test_families_are_listed_with_their_counts(docs: Page) -> None:
    text = docs.run("document.getElementById('families').innerText")
    families: dict[str, int] = {}
    for entry in generated_catalogue():
        families[entry["family"]] = families.get(entry["family"], 0) + 1
    for family, count in families.items():
        assert f"{family}\n{count}" in text.replace("\t", "\n"), family
    parts = docs.run("[...document.querySelectorAll('#families .part .count')].map((e) => Number(e.textContent))")
    assert max(parts) <= 100


def test_a_family_is_shown_and_marked(docs: Page) -> None:
    docs.click('#families a[data-name="fft"]')
    docs.wait("document.getElementById('operations-fft-fft_fft')")
    assert docs.run("location.hash") == "#/fft"
    assert docs.run("document.querySelector('#families a[aria-current]').dataset.name") == "fft"
    assert docs.run("document.title") == "fft · curlgrad"
    docs.run("history.back()")
    docs.wait("document.getElementById('operations-sessions-create_session')")


def test_the_search_finds_all_operations_by_keyboard(docs: Page) -> None:
    docs.press("/", 191, "/")
    assert docs.run("document.activeElement.id") == "search"
    assert docs.run("document.querySelectorAll('#hits [role=option]').length") > SIZE
    docs.type("relu")
    hits = docs.run("[...document.querySelectorAll('#hits .hit-name')].map((e) => e.textContent)")
    assert hits[:2] == ["relu", "nn.functional.relu"]
    assert docs.run("document.getElementById('search-status').textContent") == f"{len(hits)} operations"
    docs.press("ArrowDown", 40)
    assert docs.run("document.getElementById('search').getAttribute('aria-activedescendant')") == "hit-1"
    docs.press("Enter", 13)
    docs.wait(OPENED)
    assert docs.run("location.hash") == "#/nn/nn_functional_relu"
    assert docs.run("document.getElementById('hits').hidden")
    docs.wait("document.activeElement.closest('.opblock')?.id === 'operations-nn-nn_functional_relu'")
    # It is in sight, below the header.
    top = docs.run("document.querySelector('.opblock.is-open').getBoundingClientRect().top")
    assert docs.run("document.querySelector('header').offsetHeight") <= top < 200


def test_the_search_says_when_it_finds_nothing(docs: Page) -> None:
    docs.click("#search")
    docs.type("no such thing")
    assert docs.run("document.getElementById('search-status').textContent") == "No operations"
    docs.press("Enter", 13)
    docs.press("Escape", 27)
    assert docs.run("document.getElementById('hits').hidden")


def test_an_address_without_an_operation_says_so(fresh: Callable[[], Page], site: Site) -> None:
    page = fresh()
    page.open(f"{site.address}/docs#/fft/nothing")
    page.wait("!document.getElementById('failure').hidden")
    assert "no operation nothing in fft" in page.run("document.getElementById('failure').textContent")


def test_opening_an_operation_changes_the_address(docs: Page) -> None:
    docs.click("#operations-tensors-read_tensor .opblock-summary-control")
    docs.wait(OPENED)
    assert docs.run("location.hash") == "#/tensors/read_tensor"
    docs.click("#operations-tensors-read_tensor .opblock-summary-control")
    docs.wait("location.hash === '#/tensors'")


# ---------------------------------------------------------------- reading and trying


def test_an_operation_shows_what_it_takes(fresh: Callable[[], Page], site: Site) -> None:
    page = fresh()
    page.open(f"{site.address}/docs#/pointwise/add")
    page.wait(OPENED)
    fields = page.run("[...document.querySelectorAll('.fields tbody tr')].map((r) => r.innerText.split(/\\s*\\t\\s*/))")
    assert fields[0][:2] == ["input required", "Tensor"]
    assert fields[2] == ["alpha", "Number", "1", "the multiplier for other"]
    problems = page.run("[...document.querySelectorAll('.response-problem')].map((r) => r.dataset.code)")
    statuses = (400, 401, 403, 404, 406, 409, 410, 412, 413, 415, 421, 422, 429, 503, 504, 507)
    assert problems == [str(status) for status in statuses]
    page.run("document.querySelectorAll('.opblock-section-request-body .tablinks')[1].click()")
    page.wait("document.querySelector('.json-schema-2020-12')")


def test_what_is_tried_out_is_the_example_and_the_answer_is_shown_as_it_came(
    fresh: Callable[[], Page], site: Site
) -> None:
    page = fresh()
    page.open(f"{site.address}/docs#/linalg/linalg_inv")
    page.wait(OPENED)
    page.click(".try-out__btn")
    page.wait("document.querySelector('textarea.body-param__text')")
    example = next(entry for entry in generated_catalogue() if entry["name"] == "linalg.inv")["example"]
    text = page.run("document.querySelector('textarea.body-param__text').value")
    assert text == '{\n  "input": [[2.5, 0.5], [0.5, 1.5]]\n}'  # a matrix looks like one
    site.sent.clear()
    page.click(".execute")
    page.wait("document.querySelector('.live-responses-table .response-col_status')")
    assert site.sent == [("linalg.inv", example)]
    (request,) = [r for r in page.requests() if r["method"] == "POST"]
    assert request["url"] == f"{site.address}/v1/ops/linalg.inv"
    assert request["headers"]["Content-Type"] == "application/json"
    # 1.0 stays 1.0: the answer is not read and written again on its way.
    page.wait("document.querySelector('.live-responses-table').innerText.includes('\"values\": [1.0, 2.5]')")
    assert "200" in page.run("document.querySelector('.live-responses-table tbody .response-col_status').innerText")


_LAID_OUT = [
    ('{"a":1.0,"b":[[1,2.50],[3e5,-0.0]]}', '{\n  "a": 1.0,\n  "b": [[1, 2.50], [3e5, -0.0]]\n}'),
    ('{"s":"x, ]\\" {","n":null,"e":[],"o":{}}', '{\n  "s": "x, ]\\" {",\n  "n": null,\n  "e": [],\n  "o": {}\n}'),
    ("[" + ",".join(["123456789"] * 9) + "]", "[\n  " + ",\n  ".join(["123456789"] * 9) + "\n]"),
    ("9007199254740993", "9007199254740993"),
    ("not json", "not json"),
    ("{}", "{}"),
]


def test_json_is_laid_out_without_touching_its_numbers(docs: Page) -> None:
    script = "import(document.querySelector('script[type=module]').src.replace('docs.js', 'json.js'))"
    for text, shown in _LAID_OUT:
        assert docs.run(f"{script}.then((m) => m.pretty({json.dumps(text)}))") == shown


def test_references_of_every_operation_are_resolved(docs: Page, site: Site) -> None:
    """All but a schema's own name inside itself: nested lists, results and steps have no end."""
    script = """(async () => {
      const page = document.querySelector('script[type=module]').src;
      const { resolve } = await import(page.replace('docs.js', 'resolve.js'));
      const whole = await (await fetch('openapi.json')).json();
      const left = new Set();
      const walk = (value) => {
        if (value === null || typeof value !== 'object') return;
        if (typeof value.$ref === 'string') left.add(value.$ref.split('/').pop());
        Object.values(value).forEach(walk);
      };
      let count = 0;
      for (const path of Object.keys(whole.paths))
        for (const method of Object.keys(whole.paths[path])) {
          walk(resolve(whole, ['paths', path, method]));
          count += 1;
        }
      return { count, left: [...left].sort(), missing: resolve(whole, ['paths', '/none', 'get']) };
    })()"""
    found = docs.run(script)
    assert found["count"] > SIZE
    assert found["left"] == ["NestedList", "Result", "Step", "Values"]
    assert found["missing"] is None


def test_the_pages_of_the_real_application_work(fresh: Callable[[], Page], real: Server) -> None:
    page = fresh()
    page.open(real.address)
    page.wait(LISTED)
    assert page.run("location.pathname") == "/docs"
    page.press("/", 191, "/")
    page.type("mul")
    page.press("Enter", 13)
    page.wait(OPENED)
    page.click(".try-out__btn")
    page.wait("document.querySelector('textarea.body-param__text')")
    example = json.loads(page.run("document.querySelector('textarea.body-param__text').value"))
    page.click(".execute")
    page.wait("document.querySelector('.live-responses-table .response-body, .live-responses-table .microlight')")
    answer = json.loads(page.run("document.querySelector('.live-responses-table .microlight').innerText"))
    assert answer["op"] == "mul"
    assert set(example) == {"input", "other"}
    assert answer["result"]["dtype"] == "float32"
    assert answer["result"]["values"]


# ---------------------------------------------------------------- looks


def test_the_colours_follow_the_system_until_the_reader_chooses(docs: Page) -> None:
    dark = "document.documentElement.classList.contains('dark-mode')"
    assert not docs.run(dark)
    docs.dark(True)
    docs.wait(dark)
    docs.click("#theme")
    docs.wait(f"!{dark}")
    docs.run("window.before = true; location.reload()")
    docs.wait(f"!window.before && {LISTED}")
    assert not docs.run(dark)


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_is_wider_than_the_page(docs: Page, width: int) -> None:
    docs.resize(width, 800)
    docs.run("location.hash = '#/nn/nn_functional_conv2d'")
    docs.wait(OPENED)
    assert docs.run("document.documentElement.scrollWidth") <= width
    narrow = docs.run("getComputedStyle(document.getElementById('families')).display") == "none"
    assert narrow == (width < 736)
    assert docs.run("document.getElementById('family-select').offsetParent !== null") == narrow


# ---------------------------------------------------------------- the reference


def test_the_reference_shows_all_operations_and_opens_one(
    fresh: Callable[[], Page], site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    page = fresh()
    shown = page.seconds(lambda: page.open(f"{site.address}/redoc"), "document.body?.innerText.includes('pointwise')")
    page.run(
        "[...document.querySelectorAll('*')].find((e) => !e.children.length && e.textContent === 'linalg').click()"
    )
    page.wait("document.querySelector('.menu-content a[href$=\"/linalg_inv\"]')")
    signature = "[...document.querySelectorAll('code')].some((e) => e.textContent.startsWith('linalg.inv('))"
    link = "document.querySelector('.menu-content a[href$=\"/linalg_inv\"]')"
    assert page.run(f"{link}.innerText").startswith("linalg.inv")
    opened = page.seconds(lambda: page.run(f"{link}.click()"), signature)
    # Nothing on the page offers to send its text elsewhere.
    buttons = page.run("[...document.querySelectorAll('button')].filter((e) => e.offsetParent).map((e) => e.innerText)")
    assert not any("copy" in text.lower() for text in buttons)
    with capsys.disabled():
        print(f"\n  /redoc shows the whole document: {shown:.2f} s, opens an operation: {opened:.2f} s", end="")
