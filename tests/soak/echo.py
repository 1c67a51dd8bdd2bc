"""A bare FastAPI application with one route that gives back what it was sent: the peer of the soak test."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

application = FastAPI()


@application.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    return body


if __name__ == "__main__":
    config = uvicorn.Config(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
    uvicorn.Server(config).run()
