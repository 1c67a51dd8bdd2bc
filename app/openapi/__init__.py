"""The OpenAPI documents: made from the catalogue of operations, on first use, and kept as bytes.

components.py   schemas that operations and routes share
replies.py      parameters, headers and problems that calls have in common
core.py         the fixed routes
operations.py   from the catalogue's entries to paths
documents.py    the whole document, one per family, and the index of them
served.py       bytes with ETag and gzip
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from app.openapi.documents import Documents


def install(application: FastAPI, catalogue: Callable[[], list[dict[str, Any]]], root_path: str = "") -> None:
    """Serve `/openapi.json`, `/openapi/{family}.json` and `/openapi/index.json`, made from what `catalogue` returns.

    `application` gives title and version. `catalogue` is called once, by the first request for a document.
    `root_path`: where a proxy publishes the server.
    """
    documents = Documents(catalogue, application.title, application.version, root_path or "/")

    # Plain functions: building and compressing take up to a second, so they belong in the thread pool.
    def whole(request: Request) -> Response:
        return documents.whole().reply(request)

    def index(request: Request) -> Response:
        return documents.index().reply(request)

    def family(request: Request, document: str) -> Response:
        return documents.family(document).reply(request)

    for path, endpoint in (
        ("/openapi.json", whole),
        ("/openapi/index.json", index),
        ("/openapi/{document}.json", family),
    ):
        application.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
