"""The tutorial, followed by readers of every kind: what they type is read from the pages, sent, and compared with them.

The readers are written here, not taken from what makes the pages: a shell, the command line of Windows, a reader of
fetch, and Python itself. Node and curl run the snippets too where they are installed.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from scripts import tutorial

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial"
PAGES = sorted(path.stem for path in (TUTORIAL / "en").glob("*.md"))

_FENCE = re.compile(r"^```(\w+)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_HINTED = re.compile(r"POST (/v1/ops/\S+) (\{.*?\})(?=$|[;:,)]| makes| or )")


@dataclass
class Example:
    """The code of one example of a page, and the fence below it; where there is no `sh`, it is one for Python alone."""

    sh: str = ""
    bat: str = ""
    js: str = ""
    python: str = ""
    output: tuple[str, str] | None = None


def examples(name: str, language: str = "en") -> list[Example]:
    """The examples of a page, in order. The book's code, which comes before the curl calls, is left out."""
    text = (TUTORIAL / language / f"{name}.md").read_text("utf-8")
    found: list[Example] = []
    folded = alone = False
    for kind, body in _FENCE.findall(text):
        if kind == "sh":
            found.append(Example(sh=body))
            folded = alone = False
        elif kind == "python" and not folded:
            alone = "import httpx" in body
            if alone:
                found.append(Example(python=body))
        elif kind in ("text", "json"):
            if found and found[-1].output is None and not folded and (alone or found[-1].sh):
                found[-1].output = (kind, body)
        else:
            assert kind in ("bat", "js", "python")
            setattr(found[-1], kind, body)
            folded = kind != "python"
    return found


@dataclass(frozen=True)
class Sent:
    """A request as it leaves the reader's machine."""

    method: str
    url: str
    body: str | None = None
    kind: str | None = None

    def meant(self) -> tuple[str, str, Any]:
        """What the request says, whatever its form. A float is told from an integer by its type."""
        return self.method, self.url, None if self.body is None else told(self.fields())

    def fields(self) -> Any:
        assert self.body is not None
        if self.kind == "application/x-www-form-urlencoded" and not self.body.startswith("{"):
            return {name: _value(text) for name, text in parse_qsl(self.body, strict_parsing=True)}
        return json.loads(self.body)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def told(value: Any) -> Any:
    """The value, with the type of every number."""
    if isinstance(value, dict):
        return {name: told(item) for name, item in value.items()}
    if isinstance(value, list):
        return [told(item) for item in value]
    return (type(value).__name__, value)


# --- readers ----------------------------------------------------------------------------------------------------------


def by_curl(words: list[str]) -> Sent:
    """What curl does with these words of a command line."""
    assert words.pop(0) == "curl"
    method, url, data = None, None, []
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-d":
            data.append(words.pop(0))
        else:
            assert url is None
            assert word.startswith("http://127.0.0.1:800"), word
            url = word
    assert url is not None
    if not data:
        return Sent(method or "GET", url)
    return Sent(method or "POST", url, "&".join(data), "application/x-www-form-urlencoded")


def shell(text: str) -> list[Sent]:
    """The calls of a POSIX shell. What zsh or sh would expand stands in quotes."""
    lines = re.split(r"\n(?=curl )", text) if text else []
    for line in lines:
        assert not set("?*[]{}&;|$~#<>") & set(re.sub(r"'[^']*'", "", line)), f"needs quotes: {line}"
    return [by_curl(shlex.split(line)) for line in lines]


def command_line(text: str) -> list[Sent]:
    """The calls of cmd.exe, each one line, taken apart as Windows programs take theirs apart."""
    return [by_curl(windows_words(line)) for line in text.splitlines()]


def windows_words(line: str) -> list[str]:
    r"""Words of a command line: spaces divide but within quotes, \" is a quote, and a \ elsewhere is itself."""
    bare = re.sub(r'"(?:\\"|[^"])*"', "", line)
    assert not set("<>|&^%'") & set(bare), f"cmd.exe would take these for its own: {line}"
    assert "%" not in line
    words, word, quoted, position = [], "", False, 0
    while position < len(line):
        if line.startswith('\\"', position):
            word += '"'
            position += 1
        elif line[position] == '"':
            quoted = not quoted
        elif line[position] == " " and not quoted:
            words.append(word)
            word = ""
        else:
            word += line[position]
        position += 1
    assert not quoted, f"a quote is open: {line}"
    return [*words, word]


def fetched(text: str) -> list[Sent]:
    """The calls of fetch, whose options are written with care to be JSON almost."""
    calls = []
    for call in re.split(r"^(?=await|console)", text, flags=re.MULTILINE)[1:]:
        match = re.search(r'await fetch\("([^"]+)"(?:, \{(.*)\})?\)', call, re.DOTALL)
        assert match, call
        url, options = match[1], match[2] or ""
        method = re.search(r'method: "(\w+)"', options)
        kind = re.search(r'"Content-Type": "([^"]+)"', options)
        body = None
        if literal := re.search(r"body: `(.*)`", options, re.DOTALL):
            body = literal[1]
        elif object_ := re.search(r"body: JSON\.stringify\((.*)\)", options, re.DOTALL):
            assert not re.search(r"\d\.0*(?!\d)", object_[1]), f"JavaScript would drop the point: {object_[1]}"
            body = object_[1]
        calls.append(Sent(method[1] if method else "GET", url, body, kind[1] if kind else None))
    return calls


@dataclass
class Httpx:
    """Stands for httpx in a snippet: remembers what is sent."""

    played: tutorial.Played
    sent: list[Sent] = field(default_factory=list)

    def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        request = httpx.Request(method, url, **options)
        kind = request.headers.get("content-type")
        body = request.content.decode("latin-1" if kind == "application/x-npy" else "utf-8") or None
        self.sent.append(Sent(method, url, body, kind))
        return self.played.request(method, url, **options)

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self._send("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self._send("POST", url, **options)

    def patch(self, url: str, **options: Any) -> httpx.Response:
        return self._send("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> httpx.Response:
        return self._send("DELETE", url, **options)


def run_python(code: str, stand_in: Httpx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", stand_in)
    exec(compile(code, "the page", "exec"), {"__name__": "__main__"})


# --- comparing --------------------------------------------------------------------------------------------------------


def answered(played: tutorial.Played, calls: list[Sent]) -> str:
    """Send the calls; the body of the last answer."""
    for call in calls:
        headers = {} if call.kind is None else {"Content-Type": call.kind}
        response = played.request(
            call.method, call.url, headers=headers, content=None if call.body is None else call.body.encode()
        )
        assert response.status_code < 500
        assert response.is_success or call is calls[-1], f"{call}: {response.text}"
    return response.text


def typed_equal(a: Any, b: Any) -> bool:
    return told(a) == told(b)


def assert_shown(answer: str, output: tuple[str, str] | None) -> None:
    """The answer is what the page shows: to the letter where it is text, in all parts shown where it is JSON."""
    if output is None:
        assert not answer
    elif output[0] == "text":
        assert answer.rstrip("\n") == output[1]
    else:
        assert_part(json.loads(output[1]), json.loads(answer))


def assert_part(shown: Any, whole: Any, same: Callable[[Any, Any], bool] = typed_equal) -> None:
    """All that is shown is in the whole answer; lists are shown whole."""
    if isinstance(shown, dict):
        assert isinstance(whole, dict)
        for name, value in shown.items():
            if value == tutorial.LATER:
                assert name in tutorial.MASKED
                assert isinstance(whole[name], dict if name == "memory" else str)
            else:
                assert_part(value, whole[name], same)
    elif isinstance(shown, list):
        assert isinstance(whole, list)
        for part, value in zip(shown, whole, strict=True):
            assert_part(part, value, same)
    else:
        assert same(shown, whole), f"{shown} is shown where the answer has {whole}"


@pytest.fixture(scope="module")
def played() -> Iterator[tutorial.Played]:
    with tutorial.Played() as played:
        yield played


# --- every page, in every form ----------------------------------------------------------------------------------------


def test_the_pages_are_those_that_make_docs_makes() -> None:
    made = tutorial.pages()
    there = {str(path.relative_to(ROOT / "docs")) for path in TUTORIAL.rglob("*.md")}
    assert there == set(made)
    stale = [name for name, text in made.items() if (ROOT / "docs" / name).read_text("utf-8") != text]
    assert not stale, "run make docs"


@pytest.mark.parametrize("name", PAGES)
def test_both_languages_have_the_same_code(name: str) -> None:
    assert examples(name, "en") == examples(name, "ko")


def test_there_is_something_to_follow() -> None:
    followed = [example for name in PAGES for example in examples(name)]
    assert len(PAGES) == 13
    assert len(followed) > 130
    assert sum('"hint"' in example.output[1] for example in followed if example.output) >= 20


@pytest.mark.parametrize("name", PAGES)
def test_in_a_shell(name: str, played: tutorial.Played) -> None:
    for example in examples(name):
        if example.sh:
            assert_shown(answered(played, shell(example.sh)), example.output)
        else:
            played.run_python(example.python)


@pytest.mark.parametrize("name", PAGES)
def test_on_the_command_line_of_windows(name: str, played: tutorial.Played) -> None:
    for example in examples(name):
        if example.sh:
            calls = command_line(example.bat)
            assert [call.meant() for call in calls] == [call.meant() for call in shell(example.sh)]
            assert_shown(answered(played, calls), example.output)


@pytest.mark.parametrize("name", PAGES)
def test_with_fetch(name: str, played: tutorial.Played) -> None:
    for example in examples(name):
        if example.sh:
            calls = fetched(example.js)
            assert [call.meant() for call in calls] == [call.meant() for call in shell(example.sh)]
            assert_shown(answered(played, calls), example.output)


@pytest.mark.parametrize("name", PAGES)
def test_with_python(
    name: str, played: tutorial.Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for example in examples(name):
        stand_in = Httpx(played)
        run_python(example.python, stand_in, monkeypatch)
        printed = capsys.readouterr().out
        if example.sh:
            assert [call.meant() for call in stand_in.sent] == [call.meant() for call in shell(example.sh)]
        if example.output and example.output[0] == "json":
            assert_part(json.loads(example.output[1]), ast.literal_eval(printed))
        else:
            assert_shown(printed, example.output)


# --- PyTorch ----------------------------------------------------------------------------------------------------------

_SHOWN = re.compile(r"\n```(text|json)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def beside_pytorch() -> list[tuple[str, str, dict[str, str], str, str]]:
    """Each snippet of the book that PyTorch ran (tests/data/make_tutorial.py), and the answer that its page shows."""
    ran = json.loads((ROOT / "tests" / "data" / "tutorial.json").read_text("utf-8"))
    found = []
    for name in PAGES:
        text, position = (TUTORIAL / "en" / f"{name}.md").read_text("utf-8"), 0
        for snippet in ran[name]:
            start = text.find(f"```python\n{snippet['code']}\n```\n", position)
            if start < 0:
                continue  # test_pytorch_ran_the_code_that_the_page_has says so
            position = start + len(snippet["code"])
            ends = [text.find(mark, position) for mark in ("*PyTorch*", "<details>")]
            shown = _SHOWN.search(text, position, min(end for end in (*ends, len(text)) if end > 0))
            if shown:
                found.append((name, snippet["code"], snippet, shown[1], shown[2]))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_pytorch_ran_the_code_that_the_page_has(name: str) -> None:
    ran = json.loads((ROOT / "tests" / "data" / "tutorial.json").read_text("utf-8"))
    source = next(chapter.content for chapter in tutorial.read_chapters() if chapter.name == name)
    written = [
        item["torch"].strip("\n")
        for part in source["part"]
        if "port" not in part
        for item in part["item"]
        if "torch" in item
    ]
    assert [snippet["code"] for snippet in ran[name]] == written, "run tests/data/make_tutorial.py where PyTorch is"


@pytest.mark.parametrize("name, code, ran, kind, shown", beside_pytorch())
def test_pytorch_prints_what_the_page_shows(name: str, code: str, ran: dict[str, str], kind: str, shown: str) -> None:
    if kind == "text":
        assert ran.get("printed") == shown
    elif '"detail"' in shown:
        problem = json.loads(shown)
        if problem["code"] not in NOT_PYTORCHS:
            assert ran.get("raised", "").partition("\n")[0] == problem["detail"]
    else:
        assert "raised" not in ran


# There x.grad is None and no error, a name that is not there is Python's affair, and devices are those of its machine.
NOT_PYTORCHS = {"no-grad", "no-such-op", "no-such-device"}


# --- hints ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_call_that_a_hint_proposes_comes_next(name: str) -> None:
    page = examples(name)
    for number, example in enumerate(page):
        if not example.output or '"hint"' not in example.output[1]:
            continue
        problem = json.loads(example.output[1])
        following = [call for later in page[number + 1 : number + 3] for call in shell(later.sh)]
        assert following, "a mistake ends the page"
        for path, arguments in _HINTED.findall(problem["hint"]):
            there = [call.fields() for call in following if call.url.endswith(path)]
            assert there, f"nobody follows the hint: {problem['hint']}"
            # Which leaf is meant cannot be known from the result; the page tells.
            if problem["code"] != "does-not-require-grad":
                assert any(json.loads(arguments).items() <= fields.items() for fields in there)


# --- the real programs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The two servers of the tutorial, as processes: what the pages call 8000 and 8001, and where they are."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CURLGRAD_")}
    processes = []
    addresses = {}
    try:
        for port, workers in (("8000", "cpu:1"), ("8001", "practice-cuda")):
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "--port", "0", "--workers", workers, "--data-dir", "none"],
                cwd=ROOT,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            assert process.stderr
            found = re.search(r"127\.0\.0\.1:(\d+);", process.stderr.readline())
            assert found
            addresses[f"127.0.0.1:{port}"] = f"127.0.0.1:{found[1]}"
        yield addresses
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(30)
            assert process.stderr
            process.stderr.close()


END = "--- end of an example ---"


def through(servers: dict[str, str], command: list[str], script: str) -> list[str]:
    """Run a script that prints END after each example; what each example printed."""
    for page, real in servers.items():
        script = script.replace(page, real)
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(END + "\n")[:-1]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_prints_what_the_pages_show(servers: dict[str, str]) -> None:
    followed = [example for name in PAGES for example in examples(name) if example.js]
    # console.log writes an object in a form of its own, and deep parts not at all: JSON instead.
    script = "const log = console.log; console.log = (it) => log(typeof it === 'string' ? it : JSON.stringify(it));\n"
    script += "\n".join(f'{{\n{example.js}\n}}\nconsole.log("{END}");' for example in followed)
    printed = through(servers, ["node", "--input-type=module", "-"], script)
    for example, shown in zip(followed, printed, strict=True):
        if example.output and example.output[0] == "json":
            # 1.0 and 1 are one number in JavaScript.
            assert_part(json.loads(example.output[1]), json.loads(shown), operator.eq)
        else:
            assert_shown(shown, example.output)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_prints_what_the_pages_show(servers: dict[str, str]) -> None:
    followed = [example for name in PAGES for example in examples(name) if example.sh]
    script = "".join(
        re.sub(r"^curl ", "echo; curl -sS ", example.sh, flags=re.MULTILINE) + f"\necho\necho '{END}'\n"
        for example in followed
    )
    printed = through(servers, ["sh"], "set -e\n" + script)
    for example, shown in zip(followed, printed, strict=True):
        if example.output is None:
            assert not shown.strip()
        elif example.output[0] == "json":
            assert_part(json.loads(example.output[1]), json.loads(shown.strip().splitlines()[-1]))
        else:
            assert shown.rstrip("\n").endswith("\n" + example.output[1])
