"""A FastAPI route that only echoes, with pydantic models in and out, served as our service is: uvloop, httptools.

python bench/peers/echo.py PORT
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Body(BaseModel):
    """The body of POST /v1/ops/add, as the benchmark sends it."""

    input: list[float]
    other: list[float]
    out_name: str


@app.post("/v1/ops/add")
async def echo(body: Body) -> Body:
    """What came."""
    return body


@app.get("/ready")
async def ready() -> dict[str, bool]:
    """Answers as soon as the server is up."""
    return {"ready": True}


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
