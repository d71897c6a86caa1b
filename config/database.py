"""`python -m config.database prepare | stop | start | url | shell`: the database of development."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from config import embedded
from config.postgres import PostgresError, PostgresServer, program
from config.startup import EMBEDDED_NAME, embedded_folder

DEMO = "demo"


def prepare() -> str:
    """Apply what is missing of the migrations, and make the demo user if the server is the embedded one."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    django.setup()
    # That a pool opens for a second is no news between the steps of `make run`.
    logging.getLogger("dbresilience").setLevel(logging.WARNING)
    executor = MigrationExecutor(connection)
    if plan := executor.migration_plan(executor.loader.graph.leaf_nodes()):
        print(f"  applying {len(plan)}", flush=True)
        call_command("migrate", interactive=False, verbosity=0)
    # A password that everybody knows has no business on a real server, or in production.
    if settings.DEBUG and not os.environ.get("DATABASE_URL"):
        from django.contrib.auth.models import User

        if not User.objects.filter(username=DEMO).exists():
            User.objects.create_superuser(username=DEMO, password=DEMO)
    return ""


def url() -> str:
    """The database of the embedded server, as `PostgresServer.url` has it."""
    return PostgresServer(embedded_folder()).url(EMBEDDED_NAME)


def shell() -> NoReturn:
    """Become psql, the one that came with the server."""
    psql = program("psql")
    if not PostgresServer(embedded_folder()).is_running():
        raise PostgresError(
            "The embedded server does not run: `make run` starts it, `make db-start` after `make db-stop`."
        )
    os.execv(psql, [str(psql), url()])


def main(arguments: list[str]) -> int:
    match arguments:
        case ["prepare"]:
            said = prepare()
        case ["stop"]:
            said = embedded.stop(embedded_folder())
        case ["start"]:
            said = embedded.start(embedded_folder(), database=EMBEDDED_NAME)
        case ["url"]:
            said = url()
        case ["shell"]:
            shell()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    if said:
        print(said)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PostgresError as exc:
        sys.exit(str(exc))
