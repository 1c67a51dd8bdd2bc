"""Log lines as JSON: one object a line, for whoever collects them."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

TEXT = "%(levelname)s %(name)s: %(message)s"
FORMATS = ("text", "json")


class JsonLines(logging.Formatter):
    """{"time", "level", "logger", "message"}, what the record has as `fields`, and `error` with a traceback."""

    def __init__(self, **fixed: Any) -> None:
        super().__init__()
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._fixed,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(form: str, level: str = "INFO", text: str = TEXT, **fixed: Any) -> None:
    """Sends the log of this process to stderr, as text or as JSON lines with the `fixed` fields in each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(**fixed) if form == "json" else logging.Formatter(text))
    logging.basicConfig(level=level, handlers=[handler], force=True)
