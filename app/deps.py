"""What the routes share: one request as a `Call` (who asks, in which session, in which form), made by a dependency.

A route names the query parameters it takes beside those of every call: `call: Annotated[Call, takes("index", "as")]`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.responses import Response

from app import hangups, hints, language, prefer
from app.answers import Answer, Body
from app.errors import unknown
from app.language import Language
from app.metrics import Metrics
from app.security import Exchange, Gate, Headers, Principal
from app.wire import arguments, coding, form, json_read, json_write, media
from engine.errors import (
    EngineError,
    Hint,
    Invalid,
    Malformed,
    MissingParameter,
    OutOfMemory,
    PreconditionFailed,
    Unsupported,
    WrongType,
)
from engine.service import Service, TensorAnswer

if TYPE_CHECKING:
    from engine.service import Front

INTO_PLACE_FROM = 1 << 20  # bytes of a body from which it is received into place: below, that costs more than a copy
INTO = (
    "curlgrad.into"  # where a request's state has a way past parser and application (app/receiving.py), if there is one
)
OFF_LOOP_BYTES = 1 << 18  # bodies and answers from this size are parsed and written off the event loop
MAX_PAGE = 1000
READ = ["GET", "HEAD"]

T = TypeVar("T")

SESSION_QUERY = ("session", "values", "int64")  # of every call that works in a session
AS_JSON: Mapping[str, str] = {"Content-Type": json_write.MEDIA_TYPE}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_JSON_TYPES = ("", json_write.MEDIA_TYPE, form.MEDIA_TYPE)


class House:
    """What lives as long as the application does: the engine's door, and what is read off its catalogue once."""

    def __init__(
        self, service: Service | Front, gate: Gate, max_rate: float = 0, metrics: Metrics | None = None
    ) -> None:
        self.service, self.gate = service, gate
        self.front = cast("Front", service) if hasattr(service, "everyone") else None  # this is one of several
        self.max_rate = max_rate
        self.metrics = metrics or Metrics()
        self.listeners: dict[str, int] = {}  # requests of each owner that listen to jobs in this process
        self.drawing = asyncio.Semaphore(2)  # pictures that are drawn at a time: each takes some 200 MB at most
        self.catalogue = service.catalogue()
        self.kinds = arguments.kinds_of(self.catalogue)

    async def listening(self, owner: str) -> int:
        """How many requests of an owner listen to jobs."""
        return self.listeners.get(owner, 0) if self.front is None else await self.front.listening(owner)

    def listens(self, owner: str, more: int) -> None:
        """So many requests of an owner more listen to jobs, or fewer."""
        number = self.listeners[owner] = self.listeners.get(owner, 0) + more
        if not number:
            del self.listeners[owner]
        if self.front is not None:
            self.front.listeners(owner, number)

    async def numbers(self) -> bytes:
        """What /metrics tells, of all fronts together. Waits for no program."""
        numbers, info = await self.service.numbers(), await self.service.told()
        everyone = None if self.front is None else await self.front.everyone()
        return self.metrics.text(numbers["workers"], info, everyone)


class Call:
    """One request, read once: what was asked for beside the body, the engine's door, and the ways to answer.

    All that the query and the headers may say wrongly is refused when the call is made, before anything is done.
    """

    def __init__(self, request: Request, known: Sequence[str], offered: tuple[str, ...] = (media.JSON,)) -> None:
        self.request = request
        self.house: House = request.app.state.house
        self.exchange: Exchange = request.scope["curlgrad.exchange"]
        self.headers: Headers = request.scope["curlgrad.headers"]
        self._document: json_read.Document | None = None
        self._language: Language | None = None
        self._elements: memoryview | None = None  # a body that was received into place
        self.query = _query(request.scope["query_string"], known)
        self.form = media.choose(self.headers.get("accept"), self.query.get("as"), offered)
        self.values = self.one_of("values", ("auto", "all", "none"))
        self.integers: json_write.Integers = (
            "string" if self.one_of("int64", ("number", "string")) == "string" else "number"
        )
        self.key = self.headers.get("idempotency-key")
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise Invalid(
                "an Idempotency-Key is 1 to 255 visible ASCII characters, such as a UUID",
                code="bad-idempotency-key",
                hint=Hint("new-idempotency-key"),
            )

    # ------------------------------------------------------------ what was asked

    @property
    def principal(self) -> Principal:
        found: Principal = self.request.scope["curlgrad.principal"]
        return found

    @property
    def owner(self) -> str:
        return self.principal.owner

    @property
    def session(self) -> str | None:
        """The session's id or name; None is the caller's default session."""
        header, query = self.headers.get("curlgrad-session"), self.query.get("session")
        if header is not None and query is not None and header != query:
            raise Invalid(
                "the header Curlgrad-Session and ?session= name different sessions",
                code="two-sessions",
                hint=Hint("one-session"),
            )
        return header if header is not None else query

    @property
    def prefer(self) -> prefer.Async | None:
        """Whether what is asked for is to be a job."""
        asked = self.headers.get("prefer")
        return None if asked is None else prefer.read((asked,))

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        """A query parameter that is one of some words, the first being what it is when not given."""
        value = self.query.get(name, choices[0])
        if value not in choices:
            raise Invalid(f"?{name}={value} is none of {', '.join(choices)}", param=name)
        return value

    def flag(self, name: str) -> bool:
        """A query parameter that is true or false (or 1 or 0); false when not given."""
        return self.one_of(name, ("false", "true", "0", "1")) in ("true", "1")

    def limit(self) -> int:
        """`?limit=`: how many entries of a list the answer may have."""
        value = self.query.get("limit", "100")
        if not (value.isascii() and value.isdigit() and len(value) < 5 and 1 <= int(value) <= MAX_PAGE):
            raise WrongType(f"?limit= must be a whole number from 1 to {MAX_PAGE}", param="limit")
        return int(value)

    # ------------------------------------------------------------ conditions

    def expected(self) -> str | None:
        """The tag in If-Match, its form left out; None where any will do. A weak tag never matches (RFC 9110)."""
        text = self.headers.get("if-match")
        if text is None or text.strip() == "*":
            return None
        tags = _tags(text)
        if len(tags) != 1:
            raise Invalid("If-Match takes one entity tag here", hint=Hint("if-match-how"))
        return untagged(tags[0])

    def refuse_if_match(self) -> None:
        if "if-match" in self.headers:
            raise Invalid("If-Match goes with calls that change one tensor in place", hint=Hint("if-match-how"))

    def only_new_names(self) -> bool:
        """Whether `If-None-Match: *` asks for 409 where a name that is given is taken."""
        text = self.headers.get("if-none-match")
        if text is None:
            return False
        if text.strip() != "*":
            raise Invalid("If-None-Match takes only * on calls that change something", hint=Hint("if-none-match-how"))
        return True

    def unchanged(self, tag: Mapping[str, str]) -> bool:
        """Whether If-None-Match says that the caller has what is tagged so."""
        text = self.headers.get("if-none-match")
        known = [] if text is None else [coding.uncoded(part.removeprefix("W/")) for part in _tags(text)]
        return "*" in known or tag.get("ETag") in known

    # ------------------------------------------------------------ bodies

    @property
    def content_type(self) -> str:
        return media.essence(self.headers.get("content-type"))

    async def body(self) -> bytes:
        """The body, in one piece."""
        self._refuse_encoding()
        return await self.request.body()

    async def elements(self, *, changed: bool = False) -> bytes | memoryview:
        """A body that is mostly a tensor's elements: a long one is received into the memory that its worker gets.

        `changed`: what is asked may change them in place (see Service.incoming).
        """
        length = int(self.headers.get("content-length") or 0)
        if length < INTO_PLACE_FROM:
            return await self.body()
        self._refuse_encoding()
        try:
            memory = self.house.service.incoming(length, changed=changed)
            into = self.request.scope.get("state", {}).get(INTO)
            if into is None or not await into(self.request.scope["headers"], memory):
                async for part in self.request.stream():
                    memory.write(part)
            self._elements = memory.finish()
            return self._elements
        except ValueError:  # a server counts a body's bytes; a test's need not
            raise _ended_early() from None
        except MemoryError as error:
            raise OutOfMemory(f"the server has no memory for this body: {error}") from error

    def _refuse_encoding(self) -> None:
        encoding = self.headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() != "identity":
            raise Unsupported(f"the body is sent with the Content-Encoding {encoding!r}; send it as it is")

    async def document(self) -> json_read.Document:
        """The body as an object, of JSON or form fields; without a body the object is empty. Read once."""
        if self._document is None:
            self._document = await self._read_document()
        return self._document

    async def _read_document(self) -> json_read.Document:
        kind = self.content_type
        if not is_json(kind):
            raise unsupported(kind, (json_write.MEDIA_TYPE, form.MEDIA_TYPE))
        body = await self.body()
        return await off_loop(len(body), lambda: document_of(kind, body))

    def binary_values(self) -> str:
        """Which values the form needs: the binary ones are nothing but values. Raises Invalid for other wishes."""
        if self.form == media.JSON:
            return self.values
        if "values" in self.query and self.values != "all":
            raise Invalid(f"?values={self.values} goes with JSON alone", param="values")
        return "all"

    async def fields(self, *known: str, required: Sequence[str] = (), filled: bool = True) -> dict[str, Any]:
        """The body's fields, none of them unknown; if not `filled`, the caller takes arrays and fills the rest."""
        document = await self.document()
        value: dict[str, Any] = document.value if filled else document.bare
        unknown(value, known, "field")
        for name in required:
            if name not in value:
                hint = Hint("tensor-data") if name == "data" else Hint("give-field", name=name)
                raise MissingParameter(f"the field {name!r} is missing", param=name, hint=hint)
        return value

    async def once(self) -> tuple[str, str] | None:
        """What makes a repeated request known: its Idempotency-Key with method and path, and a digest of the rest."""
        if self.key is None:
            return None
        scope, body = self.request.scope, self._elements or await self.request.body()
        told: tuple[bytes | memoryview, ...] = (scope["query_string"], self.content_type.encode(), body)

        def digest() -> str:
            made = hashlib.blake2b(digest_size=16)
            for part in told:
                made.update(len(part).to_bytes(8, "little"))
                made.update(part)
            return made.hexdigest()

        return f"{scope['method']} {scope['path']} {self.key}", await off_loop(len(body), digest)

    # ------------------------------------------------------------ the door

    async def run(self, program: dict[str, Any], *, dry_run: bool = False, values: str | None = None) -> dict[str, Any]:
        """Run a program in the caller's session; with ?explain=true the reply has `notes`, still as data."""
        explain, shown = self.flag("explain"), values or self.values
        once = None if dry_run else await self.once()
        running = self.house.service.run(self.owner, self.session, program, shown, dry_run, explain, once)
        reply, timing = await (running if once is not None else hangups.unless_gone(self.request, running))
        self.exchange.queue_ms, self.exchange.run_ms = timing.queue_ms, timing.run_ms
        return reply

    async def run_alone(self, program: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Run a program that the caller did not write: to them there are no steps."""
        try:
            return await self.run(program, dry_run=dry_run)
        except EngineError as error:
            error.step = error.round = None
            raise

    async def ask(self, question: dict[str, Any], values: str | None = None) -> Any:
        """Read from the caller's session."""
        asking = self.house.service.query(self.owner, self.session, question, values or self.values)
        reply, timing = await hangups.unless_gone(self.request, asking)
        self.exchange.queue_ms += timing.queue_ms
        self.exchange.run_ms += timing.run_ms
        return reply

    # ------------------------------------------------------------ answers

    def spoken(self, notes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Notes of the engine as sentences, in the language that the caller prefers."""
        return [hints.note(note, self.language) for note in notes]

    @property
    def language(self) -> Language:
        """The language of notes."""
        if self._language is None:
            self._language = language.chosen(self.headers.get("accept-language"))
        return self._language

    @property
    def told(self) -> dict[str, str]:
        """The headers of an answer with notes."""
        return {"Content-Language": self.language.tag} if self.flag("explain") else {}

    async def json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """The answer as JSON; where a device is simulated, an object says so."""
        value = self.marked(value)
        start = time.perf_counter()
        body, told = await off_loop(json_write.weight(value), lambda: self.written(value, headers))
        self.exchange.encode_ms = (time.perf_counter() - start) * 1e3
        return Answer(body, status, told)

    def marked(self, value: Any) -> Any:
        """An answer; where a device is simulated, an object that says so."""
        if self.exchange.simulated:
            if type(value) is TensorAnswer:
                value = json_write.tensor(value, self.integers)
            if type(value) is dict:
                value = {**value, "simulated": True}
        return value

    def written(self, value: Any, headers: Mapping[str, str] | None = None) -> tuple[Body, Mapping[str, str]]:
        """An answer as JSON, in a coding that the caller takes where that pays, and its headers."""
        told: Mapping[str, str] = {**AS_JSON, **headers} if headers else AS_JSON
        return self._coded(json_write.write(value, self.integers), told)

    async def encoded(
        self,
        weight: int,
        encode: Callable[[], tuple[dict[str, str], Body]],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """An answer that a codec writes; `weight` is about how many bytes it has to write."""
        start = time.perf_counter()

        def write() -> tuple[Body, Mapping[str, str]]:
            described, body = encode()
            return self._coded(body, {**described, **(headers or {})})

        body, told = await off_loop(weight, write)
        self.exchange.encode_ms = (time.perf_counter() - start) * 1e3
        return Answer(body, status, told)

    def _coded(self, body: Body, told: Mapping[str, str]) -> tuple[Body, Mapping[str, str]]:
        """The body and its headers in a coding that the caller takes, where that pays; else as they are."""
        if not isinstance(body, bytes) or not coding.worthwhile(told["Content-Type"], len(body)):
            return body, told
        name = coding.choose(self.headers.get("accept-encoding"))
        coded = None if name is None else coding.encode(body, name)
        if name is None or coded is None:
            return body, told
        marked = {key: f'{tag[:-1]}-{name}"' for key, tag in told.items() if key == "ETag"}
        return coded, {**told, **marked, "Content-Encoding": name}


async def off_loop(weight: int, work: Callable[[], T]) -> T:
    """Do the work here where it is little, else in a thread, so that other requests are answered meanwhile."""
    return await asyncio.to_thread(work) if weight >= OFF_LOOP_BYTES else work()


def takes(*known: str, offers: tuple[str, ...] = (media.JSON,)) -> Any:
    """The dependency of a route in a session: its query parameters beside those of all such, its forms."""
    return about(*known, *SESSION_QUERY, offers=offers)


def about(*known: str, offers: tuple[str, ...] = (media.JSON,)) -> Any:
    """The dependency of a route outside of sessions: all its query parameters, its forms."""
    names = (*known, *(("as",) if len(offers) > 1 else ()))

    async def call(request: Request) -> Call:
        return Call(request, names, offers)

    return Depends(call)


def document_of(kind: str, body: bytes) -> json_read.Document:
    """A body of this type as an object; one without a body is empty. Raises Malformed, LimitExceeded."""
    if not body:
        return json_read.Document({})
    return an_object(form.read(body) if kind == form.MEDIA_TYPE else json_read.read(body), "the body")


def an_object(document: json_read.Document, what: str) -> json_read.Document:
    """The document, if its value is an object. Raises Malformed, naming `what` it is."""
    if type(document.bare) is not dict:
        raise Malformed(
            f"{what} is {_a_json(document.bare)}, and an object was expected",
            code="not-an-object",
            hint=Hint("json-object"),
        )
    return document


def _ended_early() -> Malformed:
    return Malformed("the body has not the length that its Content-Length says", code="wrong-length")


def is_json(kind: str) -> bool:
    """Whether a body of this type is read as JSON or as form fields; one without a type is."""
    return kind in _JSON_TYPES or (kind.startswith("application/") and kind.endswith("+json"))


def unsupported(kind: str, types: Sequence[str]) -> Unsupported:
    """The refusal of a body's content type."""
    return Unsupported(
        f"a body of the type {kind!r} is not understood here", hint=Hint("content-types", types=list(types))
    )


def etag_of(tensor: TensorAnswer, form_tag: str = "") -> dict[str, str]:
    """The ETag header: the tensor's tag, and which of its forms this is; that of the plain JSON object is not named."""
    if tensor.etag is None:
        return {}
    return {"ETag": f'"{tensor.etag}~{form_tag}"' if form_tag else f'"{tensor.etag}"'}


def untagged(tag: str) -> str:
    """The tensor's tag of an ETag header, or of a tensor object's `etag`."""
    return coding.uncoded(tag if tag.endswith('"') else f'{tag}"').strip('"').partition("~")[0]


def check_expected(expected: str | None, etag: str | None) -> None:
    """Raise PreconditionFailed where a tag was expected and another is there."""
    if expected is not None and expected != etag:
        raise PreconditionFailed("the tensor has changed: If-Match does not hold")


def _tags(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _query(text: bytes, known: Sequence[str]) -> dict[str, str]:
    """The query parameters, none of them unknown or given twice."""
    if not text:
        return {}
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise Malformed("the query is not a list of name=value in UTF-8") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query:
            raise Invalid(f"the query parameter {name!r} is given twice", param=name)
        query[name] = value
    unknown(query, known, "query parameter")
    return query


def _a_json(value: Any) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
    return names.get(type(value), "null")
