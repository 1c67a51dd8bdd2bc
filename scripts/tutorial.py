"""Makes the tutorial's pages in docs/tutorial/{en,ko} from docs/tutorial/source/*.toml; `make docs` runs it.

    python scripts/tutorial.py            writes
    python scripts/tutorial.py --check    says what would change, and exits with 1 if anything would

A source is one chapter: its text in both languages, and each call once, as `METHOD /path {body}`. Every call is sent to
the application, in process, and what it answers is what the page shows; so no output is written by hand. From the same
call come its forms for curl, the command line of Windows, JavaScript and Python.

    title = {en = "…", ko = "…"}
    intro = {en = "…", ko = "…"}
    [[part]]                      a section: its title = {en, ko}, and its items in order
    port = 8001                   the practice server, for this section; else 8000
    [[part.item]]
    en = "…" / ko = "…"           text before the item's code
    torch = "…"                   what a book on PyTorch would say
    calls = "…"                   one call a line, a line that begins with a space goes on with the one before;
                                  the answer to the last one is shown
    fields = ["result.shape"]     the parts of a JSON answer that are shown; of a refusal, those in REFUSAL
    refused = true                the last call is an error; all others must succeed
    silent = true                 the answer is not shown
    python = "…"                  in place of calls: a snippet for Python alone, its output shown
    answer = true                 the item is part of the answer to an exercise, folded away
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.main import create_app  # noqa: E402
from app.settings import Settings  # noqa: E402
from engine.backend import CPU  # noqa: E402
from engine.service import Service, WorkerSpec  # noqa: E402

TUTORIAL = ROOT / "docs" / "tutorial"
LANGUAGES = ("en", "ko")
PORT, PRACTICE_PORT = 8000, 8001
REFUSAL = ("status", "code", "detail", "hint")
WIDTH = 100  # a JavaScript or Python call that is longer gets more lines
LATER = "…"  # stands for what differs from run to run

WORDS = {
    "en": {
        "torch": "PyTorch",
        "http": "Over HTTP",
        "forms": "The same for Windows, JavaScript and Python",
        "windows": "Windows command line",
        "answer": "Answer",
        "hint": "",
        "index": "Contents",
        "start": "This chapter starts with an empty session: what earlier pages made is released.",
    },
    "ko": {
        "torch": "PyTorch",
        "http": "HTTP",
        "forms": "Windows, JavaScript, Python에서는",
        "windows": "Windows 명령 프롬프트",
        "answer": "정답 보기",
        "hint": "`Accept-Language: ko` 헤더를 함께 보내면 `hint`를 한국어로 받습니다.",
        "index": "차례",
        "start": "이 장은 빈 세션에서 시작합니다. 앞에서 만든 텐서는 모두 지워집니다.",
    },
}

# --- calls, and their forms -------------------------------------------------------------------------------------------

_LINE = re.compile(r"(GET|POST|PATCH|DELETE) (/\S+)(?:\s+(\{.*\}))?", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b')
_WHOLE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.0+)(?:[eE][-+]?\d+)?(?![\d.])|-?\d+[eE][-+]?\d+')
_PLAIN = re.compile(r"[A-Za-z0-9_.:\-]+")
_PYTHON = {"true": "True", "false": "False", "null": "None"}


@dataclass(frozen=True)
class Call:
    """One request: `body` is JSON as the source writes it, and None where nothing is sent."""

    method: str
    path: str
    body: str | None
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"


def read_calls(text: str, port: int) -> list[Call]:
    """The calls of an item. Raises ValueError for a line that is none, and for a body that is no JSON object."""
    calls = []
    for line in filter(None, re.split(r"\n(?=\S)", text.strip())):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"not a call: {line}")
        method, path, body = match.groups()
        if body is not None:
            json.loads(body)
        calls.append(Call(method, path, body, port))
    return calls


def curl(call: Call) -> str:
    """The call for a POSIX shell. A `?` needs quotes in zsh."""
    url = f"'{call.url}'" if "?" in call.url else call.url
    if call.body is not None:
        if "'" in call.body:
            raise ValueError(f"a quote within quotes: {call.body}")
        return f"curl {_method(call, 'POST')}{url} -d '{call.body}'"
    return f"curl {_method(call, 'GET')}{url}"


def windows(call: Call) -> str:
    """The call for cmd.exe: as fields, which need no quotes, where the body allows it, else as JSON with escapes."""
    url = f'"{call.url}"' if "&" in call.url else call.url
    if call.body is None:
        return f"curl {_method(call, 'GET')}{url}"
    fields = [_field(name, value) for name, value in json.loads(call.body, parse_float=_Verbatim).items()]
    if all(fields):
        return f"curl {_method(call, 'POST')}{url} " + (" ".join(f"-d {field}" for field in fields) or "-d {}")
    body = re.sub(r"\s*\n\s*", " ", call.body)
    if "\\" in body or "%" in body:
        raise ValueError(f"cmd.exe would need more than escaped quotes: {body}")
    return f"curl {_method(call, 'POST')}{url} -d " + '"' + body.replace('"', '\\"') + '"'


def _method(call: Call, implied: str) -> str:
    return "" if call.method == implied else f"-X {call.method} "


class _Verbatim(float):
    """A float that is written as it was read."""

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __repr__(self) -> str:
        return self.text


def _field(name: str, value: Any) -> str | None:
    """`name=value`, or None where it would need quotes."""
    if isinstance(value, str):
        text = value
        with contextlib.suppress(ValueError):
            json.loads(value)
            return None  # a string that looks like JSON would be read as that
        return f"{name}={text}" if _PLAIN.fullmatch(text) else None
    text = _compact(value)
    return None if '"' in text or " " in text else f"{name}={text}"


def _compact(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_compact, value)) + "]"
    return repr(value) if isinstance(value, _Verbatim) else json.dumps(value, separators=(",", ":"))


def javascript(calls: list[Call], shown: str | None) -> str:
    """The calls with fetch; the last one's answer is printed, as `text` or `json`."""
    lines = []
    for call in calls:
        options = []
        if call.method != "GET":
            options.append(f'method: "{call.method}"')
        if call.body is not None:
            options += ['headers: {"Content-Type": "application/json"}', f"body: {_javascript_body(call.body)}"]
        rest = ", {" + ", ".join(options) + "}" if options else ""
        if len(call.url) + len(rest) > WIDTH - 20 and call.body is not None:
            rest = ", {\n" + "".join(f"  {option},\n" for option in options) + "}"
        sent = f'await fetch("{call.url}"{rest})'
        lines.append(f"console.log(await ({sent}).{shown}());" if shown and call is calls[-1] else f"{sent};")
    return "\n".join(lines)


def _javascript_body(body: str) -> str:
    """JSON.stringify of it, unless it has a float that JavaScript would write as an integer: then the text itself."""
    if any(not found.startswith('"') for found in _WHOLE_FLOAT.findall(body)):
        return f"`{body}`"
    return f"JSON.stringify({body})"


def python(calls: list[Call], shown: str | None) -> str:
    """The calls with httpx; the last one's answer is printed, as `text` or `json`."""
    lines = ["import httpx", ""]
    for call in calls:
        sent = f'httpx.{call.method.lower()}("{call.url}"'
        if call.body is not None:
            body = _WORD.sub(lambda found: _PYTHON.get(found[0], found[0]), call.body)
            short = len(sent) + len(body) < WIDTH - 15
            sent += f", json={body}" if short else f",\n    json={body},\n"
        sent += ")"
        reader = {"text": ".text", "json": ".json()"}
        lines.append(f"print({sent}{reader[shown]})" if shown and call is calls[-1] else sent)
    return "\n".join(lines)


# --- what the application answers -------------------------------------------------------------------------------------


class Played:
    """The applications that the pages are played on: one without a GPU, and a practice one."""

    def __init__(self) -> None:
        self._loop = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self._clients: dict[int, httpx.AsyncClient] = {}

    def __enter__(self) -> Self:
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stack.aclose())
        self._loop.close()

    async def _start(self) -> None:
        CPU.model = PROCESSOR
        specs = {
            PORT: WorkerSpec("cpu-0", ("cpu",), inline=True),
            PRACTICE_PORT: WorkerSpec("practice-0", ("cpu", "cuda:0"), inline=True, practice=True),
        }
        for port, spec in specs.items():
            application = create_app(Settings(), Service([spec]))
            await self._stack.enter_async_context(application.router.lifespan_context(application))
            transport = httpx.ASGITransport(application)
            client = httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}")
            self._clients[port] = await self._stack.enter_async_context(client)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request to the application of the URL's port."""
        port = httpx.URL(url).port
        if port not in self._clients:
            raise ValueError(f"no server of the tutorial is at {url}")
        return self._loop.run(self._clients[port].request(method, url, **options))

    def send(self, call: Call, **headers: str) -> httpx.Response:
        """Send a call as curl would."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if call.body is not None else {}
        content = call.body.encode() if call.body is not None else None
        return self.request(call.method, call.url, content=content, headers={**kind, **headers})

    def run_python(self, code: str) -> str:
        """What a snippet prints whose httpx speaks to the applications."""
        snippet = _SnippetHttpx(self)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(re.sub(r"^import httpx$", "", code, flags=re.MULTILINE), {"httpx": snippet})
        return printed.getvalue()


class _SnippetHttpx:
    """The functions of httpx that the snippets use."""

    def __init__(self, played: Played) -> None:
        self._played = played

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self._played.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self._played.request("POST", url, **options)

    def patch(self, url: str, **options: Any) -> httpx.Response:
        return self._played.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> httpx.Response:
        return self._played.request("DELETE", url, **options)


def picked(answer: Any, fields: list[str] | None) -> Any:
    """The named parts of an answer, `result.shape` being a part of a part; all of it without names."""
    if fields is None:
        return answer
    made: dict[str, Any] = {}
    for path in fields:
        value, target = answer, made
        *above, last = path.split(".")
        for name in above:
            value, target = value[name], target.setdefault(name, {})
        target[last] = value[last]
    return made


def written(value: Any, indent: str = "") -> str:
    """JSON with a line for each member of an object, and lists of numbers in one."""
    if isinstance(value, dict) and value:
        inner = indent + "  "
        return (
            "{\n" + ",\n".join(f"{inner}{_quoted(k)}: {written(v, inner)}" for k, v in value.items()) + f"\n{indent}}}"
        )
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + written(item, inner) for item in value) + f"\n{indent}]"
    return _quoted(value)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


PROCESSOR = "this machine's processor"  # on the pages, which are the same wherever they are made
MASKED = ("etag", "model", "memory")


def masked(value: Any) -> Any:
    """The answer with what differs from run to run left out."""
    if isinstance(value, dict):
        return {k: LATER if k in MASKED and v is not None else masked(v) for k, v in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Output:
    """What the last call of an item answers: the language of its fence, and its text; and a Korean hint."""

    kind: str | None
    text: str
    hint: str | None = None


def play(item: dict[str, Any], calls: list[Call], played: Played) -> Output:
    """Send the item's calls. Raises ValueError where one fails that should not, or one does not that should."""
    for number, call in enumerate(calls, 1):
        last = number == len(calls)
        refused = last and item.get("refused", False)
        response = played.send(call)
        if response.is_success is bool(refused) or response.status_code >= 500:
            raise ValueError(f"{call.method} {call.path} {call.body}: {response.status_code} {response.text}")
    if item.get("silent") or response.status_code == 204:
        return Output(None, "")
    if response.headers["content-type"].startswith("text/plain"):
        return Output("text", response.text.rstrip("\n"))
    answer = response.json()
    if not refused:
        return Output("json", written(masked(picked(answer, item.get("fields")))))
    hint = played.send(calls[-1], **{"Accept-Language": "ko"}).json().get("hint")
    return Output("json", written(picked(answer, [name for name in REFUSAL if name in answer])), hint)


# --- pages ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chapter:
    """One source file."""

    name: str  # 01-create
    number: int
    content: dict[str, Any]

    def title(self, language: str) -> str:
        return f"{self.number}. {self.content['title'][language]}"


def read_chapters(folder: Path = TUTORIAL / "source") -> list[Chapter]:
    """The chapters, in the order of their files' names."""
    return [
        Chapter(path.stem, number, tomllib.loads(path.read_text("utf-8")))
        for number, path in enumerate(sorted(folder.glob("*.toml")), 1)
    ]


def fence(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.strip(chr(10))}\n```\n"


def code(item: dict[str, Any], calls: list[Call], output: Output, language: str) -> Iterator[str]:
    """The code of an item: the book's, the call's, the answer, and the other forms, folded."""
    words = WORDS[language]
    if "torch" in item:
        yield f"*{words['torch']}*\n"
        yield fence("python", item["torch"])
    if "python" in item:
        yield fence("python", item["python"])
        yield fence("text", output.text)
    if not calls:
        return
    yield f"*{words['http']}*\n"
    yield fence("sh", "\n".join(map(curl, calls)))
    if output.kind:
        yield fence(output.kind, output.text)
    if output.hint and words["hint"]:
        yield f"{words['hint']}\n"
        yield fence("text", output.hint)
    shown = output.kind
    yield f"<details><summary>{words['forms']}</summary>\n"
    yield f"{words['windows']}:\n"
    yield fence("bat", "\n".join(map(windows, calls)))
    yield "JavaScript:\n"
    yield fence("js", javascript(calls, shown))
    yield "Python:\n"
    yield fence("python", python(calls, shown))
    yield "</details>\n"


def page(chapter: Chapter, chapters: list[Chapter], played: Played) -> dict[str, str]:
    """The chapter's page in each language; its calls are sent once."""
    pages: dict[str, list[str]] = {
        language: [
            f"# {chapter.title(language)}\n",
            f"<!-- Made by `make docs` from docs/tutorial/source/{chapter.name}.toml; edit that. -->\n",
        ]
        for language in LANGUAGES
    }
    opening = read_calls("DELETE /v1/sessions/default", PORT)
    nothing = play({}, opening, played)
    for language in LANGUAGES:
        pages[language] += [chapter.content["intro"][language].strip() + "\n", WORDS[language]["start"] + "\n"]
        pages[language] += code({}, opening, nothing, language)
    for part in chapter.content["part"]:
        for language in LANGUAGES:
            if "title" in part:
                pages[language].append(f"## {part['title'][language]}\n")
        folded = False
        for item in part["item"]:
            calls = read_calls(item.get("calls", ""), part.get("port", PORT))
            if "python" in item:
                output = Output("text", played.run_python(item["python"]).rstrip("\n"))
            else:
                output = play(item, calls, played) if calls else Output(None, "")
            opens = bool(item.get("answer")) and not folded
            closes = folded and not item.get("answer")
            folded = bool(item.get("answer"))
            for language in LANGUAGES:
                if closes:
                    pages[language].append("</details>\n")
                if opens:
                    pages[language].append(f"<details><summary>{WORDS[language]['answer']}</summary>\n")
                if language in item:
                    pages[language].append(item[language].strip() + "\n")
                pages[language] += code(item, calls, output, language)
        if folded:
            for language in LANGUAGES:
                pages[language].append("</details>\n")
    for language in LANGUAGES:
        pages[language].append(_onwards(chapter, chapters, language))
    return {language: "\n".join(parts) for language, parts in pages.items()}


def _onwards(chapter: Chapter, chapters: list[Chapter], language: str) -> str:
    """The links to the chapters before and after."""
    before = chapters[: chapter.number - 1][-1:]
    after = chapters[chapter.number :][:1]
    links = [
        *(f"[← {other.title(language)}]({other.name}.md)" for other in before),
        f"[{WORDS[language]['index']}](../README.md)",
        *(f"[{other.title(language)} →]({other.name}.md)" for other in after),
    ]
    return "---\n\n" + " · ".join(links) + "\n"


def index(chapters: list[Chapter]) -> str:
    """docs/tutorial/README.md: source/README.txt, with the table of chapters in place of `{chapters}`."""
    rows = [
        f"| [{chapter.title('en')}](en/{chapter.name}.md) | [{chapter.title('ko')}](ko/{chapter.name}.md) |"
        for chapter in chapters
    ]
    table = "\n".join(["| English | 한국어 |", "| --- | --- |", *rows])
    return (TUTORIAL / "source" / "README.txt").read_text("utf-8").replace("{chapters}", table)


def pages() -> dict[str, str]:
    """Every page of the tutorial, by its path under docs/."""
    chapters = read_chapters()
    made = {"tutorial/README.md": index(chapters)}
    with Played() as played:
        for chapter in chapters:
            try:
                written_pages = page(chapter, chapters, played)
            except (ValueError, KeyError) as error:
                raise ValueError(f"docs/tutorial/source/{chapter.name}.toml: {error}") from error
            for language, text in written_pages.items():
                made[f"tutorial/{language}/{chapter.name}.md"] = text
    return made


def main() -> int:
    """Write the pages, or say which are stale; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = []
    for name, made in pages().items():
        path = ROOT / "docs" / name
        if path.exists() and path.read_text("utf-8") == made:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made, "utf-8")
    if options.check and stale:
        print(f"not what the sources and the service say: {', '.join(stale)}; run make docs", file=sys.stderr)
        return 1
    print("tutorial: " + (f"wrote {', '.join(stale)}" if stale else "nothing to change"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
