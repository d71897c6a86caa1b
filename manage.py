#!/usr/bin/env python
"""Django's command line for this project."""

from __future__ import annotations

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as exc:
        raise SystemExit(
            "Django is not installed in this Python: run `make setup`, then .venv/bin/python manage.py"
        ) from exc
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
