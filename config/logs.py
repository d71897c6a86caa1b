"""How everything is logged, by the site and by the server it runs in: to stderr, a line each."""

from __future__ import annotations

from typing import Any


def logging_config(*, readable: bool, loggers: dict[str, Any]) -> dict[str, Any]:
    """Settings for `logging.config.dictConfig`: lines for people if `readable`, else one JSON object a line."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s", "datefmt": "%H:%M:%S"},
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
            },
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines" if readable else "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": loggers,
    }
