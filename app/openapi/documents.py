"""The documents: the whole one for generators, and small ones, which a documentation page shows fast.

A browser's time to show a list and open an operation grows with the document, so there is one per family of operations.
Families of more than `PART` operations are there in parts too (`pointwise-1`, …). An index tells which one has what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from threading import RLock

from app.openapi import core, operations
from app.openapi.components import SCHEMAS, Json
from app.openapi.replies import HEADERS, PARAMETERS, RESPONSES
from app.openapi.served import Served
from engine.errors import Bug, Hint, NotFound

CORE = "core"
INDEX = "index"
PART = 100

_COMPONENTS: Json = {"schemas": SCHEMAS, "parameters": PARAMETERS, "headers": HEADERS, "responses": RESPONSES}
# A server without keys asks for none, so the document says both.
_SECURITY: Json = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, made by `python -m app keys create`."}
}
_METHODS = ("get", "put", "post", "patch", "delete")

_DESCRIPTION = """PyTorch's tensors and autograd over HTTP. Operations have PyTorch's names, parameters and errors.
A session holds the tensors; an id such as `t1`, or a name that you give, refers to one.

```
curl -d '{"data": [1.5, 2.5], "requires_grad": true, "name": "x"}' $URL/v1/tensors
curl -d '{"input": "x", "other": 3, "out_name": "y"}'              $URL/v1/ops/mul
curl -d '{"input": "y", "out_name": "loss"}'                       $URL/v1/ops/sum
curl -d '{}'                                                       $URL/v1/tensors/loss/backward
```

`1` is an int and `1.0` a float, and the difference decides dtypes as it does in PyTorch; where a language cannot write
`1.0`, `{"float": 1}` is the float. `"NaN"`, `"Infinity"` and `"-Infinity"` are what JSON lacks. Unknown fields are
refused."""


class Documents:
    """Everything under `/openapi`, each built once, on first use. Safe to use from several threads."""

    def __init__(self, catalogue: Callable[[], list[Json]], title: str, version: str, server: str = "/") -> None:
        self._server = server
        self._catalogue = catalogue
        self._title = title
        self._version = version
        self._lock = RLock()
        self._parts: dict[str, Served] = {}

    @cached_property
    def families(self) -> dict[str, list[Json]]:
        """Family -> its entries by name, families by name too."""
        found: dict[str, list[Json]] = {}
        for entry in sorted(self._catalogue(), key=lambda e: (e["family"], e["name"].lower(), e["name"])):
            found.setdefault(entry["family"], []).append(entry)
        if clash := set(found) & {CORE, INDEX, *core.TAGS}:
            raise Bug(f"families cannot be called {', '.join(sorted(clash))}: documents or tags have these names")
        return found

    @cached_property
    def parts(self) -> dict[str, list[Json]]:
        """Document -> its entries: a family, or, of a large one, as few and as equal parts as `PART` allows."""
        found: dict[str, list[Json]] = {}
        for family, entries in self.families.items():
            count = -(-len(entries) // PART)
            if count == 1:
                found[family] = entries
            else:
                cuts = [round(n * len(entries) / count) for n in range(count + 1)]
                found |= {f"{family}-{n + 1}": entries[cuts[n] : cuts[n + 1]] for n in range(count)}
        return found

    def whole(self) -> Served:
        """Every route and every operation."""
        return self._once(".", self._whole)

    def index(self) -> Served:
        """Which documents there are and which operation is in which: what a page needs to find and open one."""
        return self._once(INDEX, self._index)

    def family(self, name: str) -> Served:
        """The document of a family, of a part of a large one, or of the fixed routes. Raises NotFound."""
        if name == CORE:
            return self._once(name, lambda: self._document(core.paths(), core.TAGS))
        with self._lock:
            entries = self.parts.get(name) or self.families.get(name)
        if entries is None:
            known = [CORE, *self.families]
            raise NotFound(
                f"no OpenAPI document is called {name!r}: there are {', '.join(known)}",
                code="no-such-document",
                hint=Hint("known-names", names=known),
            )
        tags = {entries[0]["family"]: _count(entries)}
        return self._once(name, lambda: self._document(operations.paths(entries), tags, name))

    def _once(self, name: str, build: Callable[[], Json]) -> Served:
        with self._lock:
            if name not in self._parts:
                body = json.dumps(build(), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
                self._parts[name] = Served(body, "application/json")
            return self._parts[name]

    def _whole(self) -> Json:
        tags = {**core.TAGS, **{family: _count(entries) for family, entries in self.families.items()}}
        paths = core.paths()
        for entries in self.families.values():
            paths |= operations.paths(entries)
        found = self._document(paths, tags)
        found["x-tagGroups"] = [
            {"name": "Service", "tags": list(core.TAGS)},
            {"name": "Operations", "tags": list(self.families)},
        ]
        return found

    def _document(self, paths: Json, tags: dict[str, str], part: str = "") -> Json:
        _check_identifiers(paths)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": f"{self._title}: {part}" if part else self._title,
                "version": self._version,
                "description": tags[next(iter(tags))] if part else _DESCRIPTION,
            },
            "servers": [{"url": self._server}],
            "tags": [{"name": name, "description": text} for name, text in tags.items()],
            "security": [{"key": []}, {}],
            "paths": paths,
            "components": {**_used(paths), "securitySchemes": _SECURITY},
        }

    def _index(self) -> Json:
        listed = [
            {
                "id": call["operationId"],
                "title": f"{method.upper()} {path}",
                "summary": call["summary"],
                "tag": call["tags"][0],
                "document": CORE,
            }
            for path, method, call in _calls(core.paths())
        ]
        documents: list[Json] = [{"name": CORE, "family": CORE, "count": len(listed)}]
        for name, entries in self.parts.items():
            documents.append(
                {
                    "name": name,
                    "family": entries[0]["family"],
                    "count": len(entries),
                    "first": entries[0]["name"],
                    "last": entries[-1]["name"],
                }
            )
            listed += [
                {
                    "id": e["operation_id"],
                    "title": e["name"],
                    "summary": operations.summary(e),
                    "tag": e["family"],
                    "document": name,
                }
                for e in entries
            ]
        return {"title": self._title, "version": self._version, "documents": documents, "operations": listed}


def _count(entries: list[Json]) -> str:
    return f"{len(entries)} operation{'s' if len(entries) != 1 else ''}."


def _calls(paths: Json) -> Iterable[tuple[str, str, Json]]:
    for path, item in paths.items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _check_identifiers(paths: Json) -> None:
    seen: set[str] = set()
    for path, _, call in _calls(paths):
        name = call["operationId"]
        if name in seen or not name.isidentifier():
            raise Bug(f"{path}: the operationId {name!r} is taken or no identifier")
        seen.add(name)


def _used(paths: Json) -> Json:
    """The components that `paths` refer to, and those that these refer to. Raises Bug where one does not exist."""
    found: Json = {}
    waiting = _references(paths)
    while waiting:
        pointer = waiting.pop()
        kind, _, name = pointer.removeprefix("#/components/").partition("/")
        try:
            component = _COMPONENTS[kind][name]
        except KeyError:
            raise Bug(f"the catalogue refers to {pointer}, which is not defined") from None
        if name not in found.setdefault(kind, {}):
            found[kind][name] = component
            waiting |= _references(component)
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_references, value))
    return set()
