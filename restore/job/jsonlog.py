"""Logs as JSON lines, without secrets."""

from __future__ import annotations

import json
import logging
import os
import re
from datetime import UTC, datetime

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "FSSPEC_S3_KEY", "FSSPEC_S3_SECRET")
"""Variables of the environment."""
_PATTERNS = (
    (re.compile(r"(\w+://)[^/\s@'\"]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)((?:x-amz-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|token|secret\w*|password"
            r"|aws_\w*key\w*)['\"]?\s*[=:]\s*['\"]?)[^\s&,'\"})]+"
        ),
        r"\1***",
    ),
)
"""User and password in a URL; signed queries and settings by their names."""


def redacted(text: str) -> str:
    """Replace what looks like a secret, and the values of the variables that hold one, by three stars."""
    for name in _SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    for pattern, kept in _PATTERNS:
        text = pattern.sub(kept, text)
    return text


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC, ISO 8601), level, logger, message; film and frames if known."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        for name in ("film", "frames"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = redacted(value) if isinstance(value, str) else value
        if record.exc_info:
            line["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def is_told(record: logging.LogRecord) -> bool:
    """Leave out what libraries say about their own doings, but not their warnings."""
    return record.levelno >= logging.WARNING or record.name.split(".")[0] == "restore"
