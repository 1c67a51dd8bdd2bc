"""The documentation pages, from the project's own files: `/docs` (Swagger UI) and `/redoc`. They need no network.

assets.py            the files: names, versions, caching
vendor.py            takes Swagger UI and Redoc out of their packages
static/docs.*        the page around Swagger UI: families, search, address
static/plugin.js     what is changed in Swagger UI; resolve.js resolves references
static/vendor/       Swagger UI and Redoc as published; VENDORED.md tells versions, digests and changes
"""

from __future__ import annotations

import secrets

from fastapi import FastAPI, Request, Response

from app.openapi.served import Served
from app.pages.assets import Assets

# Only this server's files and answers; `data:` is for the icons in Swagger UI's and Redoc's own styles.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{style}; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PRACTICE = '<p class="practice" role="note">Practice server: its CUDA device is simulated on the processor.</p>'
_HEADERS = {"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin"}


def mount(application: FastAPI, *, simulated: bool = False) -> None:
    """Serve `/docs`, `/redoc`, their files under `/docs/assets/{version}` and `/favicon.ico`.

    With `simulated` each page says that a device here is a simulation.

    The pages read `/openapi.json`, `/openapi/index.json` and the documents named there.
    """
    assets = Assets(note=PRACTICE if simulated else "")

    # Plain functions: the first answer reads and compresses a file, which belongs in the thread pool.
    def docs(request: Request) -> Response:
        return assets.page("docs.html").reply(request, **_HEADERS, Content_Security_Policy=_POLICY.format(style=""))

    def redoc(request: Request) -> Response:
        # Redoc makes its styles in the page, under a nonce that is good for this answer only.
        nonce = secrets.token_urlsafe(16)
        page = Served(assets.page("redoc.html").body.replace(b"{nonce}", nonce.encode()), "text/html", "no-store")
        return page.reply(request, **_HEADERS, Content_Security_Policy=_POLICY.format(style=f" 'nonce-{nonce}'"))

    def favicon(request: Request) -> Response:
        return assets.file(assets.version, "favicon.svg").reply(request, Cache_Control="public, max-age=86400")

    def file(request: Request, version: str, name: str) -> Response:
        return assets.file(version, name).reply(request)

    for path, endpoint in (
        ("/docs", docs),
        ("/redoc", redoc),
        ("/favicon.ico", favicon),
        ("/docs/assets/{version}/{name:path}", file),
    ):
        application.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
