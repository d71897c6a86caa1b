"""What the settings need before Django starts: a database, a development key, names to answer to."""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import environ
from django.core.exceptions import ImproperlyConfigured

from config.environment import refuse

# These say what they have to say without a database; the rest should find one running.
NEEDS_NO_DATABASE = {
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "spectacular",
    "startapp",
    "version",
    "--help",
    "--version",
}


EMBEDDED_NAME = "chat"


def backend(name: str) -> str:
    """DATABASE_ENGINE, if it can be one for PostgreSQL."""
    others = {f"django.db.backends.{other}" for other in ("sqlite3", "mysql", "oracle")}
    if name in others or find_spec(name.partition(".")[0]) is None:
        refuse(f"DATABASE_ENGINE is {name!r}: it must be 'dbresilience' or 'django.db.backends.postgresql'.")
    return name


def url_database(url: str, *, engine: str) -> dict[str, Any]:
    """DATABASES entry of a DATABASE_URL. The URL itself is never printed: it holds a password."""
    example = "postgresql://user:password@host/name"
    if url.split(":", 1)[0] not in {"postgres", "postgresql"}:
        refuse(f"DATABASE_URL does not name a PostgreSQL server: it must look like {example}.")
    url, several = _without_several_hosts(url)
    try:
        database: dict[str, Any] = environ.Env.db_url_config(url, engine=engine) | several
    except (ValueError, ImproperlyConfigured):
        refuse(f"DATABASE_URL cannot be understood: it must look like {example}, special characters percent-encoded.")
    if not database.get("NAME"):
        refuse(f"DATABASE_URL names no database: it must look like {example}.")
    # libpq's two ways to name the folder of a Unix socket. Django's own entries are what `dbshell` reads.
    options = database.get("OPTIONS", {})
    for name in ("host", "port", "user"):
        if not database.get(name.upper()) and name in options:
            database[name.upper()] = options.pop(name)
    database["HOST"] = unquote(database["HOST"])
    hosts, ports = database["HOST"].split(","), str(database["PORT"]).split(",")
    if len(ports) not in (1, len(hosts)):
        refuse(
            f"DATABASE_URL names {len(hosts)} hosts and {len(ports)} ports: give each host its port, or one for all."
        )
    if len(hosts) > 1 and not all(hosts):
        refuse("DATABASE_URL has an empty host among several: give host1:port1,host2:port2.")
    return database


# A name, a percent-encoded folder of a socket, or an IPv6 address in brackets; then perhaps a port.
_HOST = re.compile(r"(?:\[([\da-fA-F:.]+)\]|([^\[\]:]*))(?::(\d{1,5}))?")


def _without_several_hosts(url: str) -> tuple[str, dict[str, str]]:
    """The URL with one host in place of several, and HOST and PORT of these as libpq takes them.

    libpq's URLs give each host a port of its own; django-environ would give all of them the ports that are there.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    if "," not in hosts:
        return url, {}
    found = [_HOST.fullmatch(part) for part in hosts.split(",")]
    if not all(found):
        refuse("DATABASE_URL has a host among several that cannot be understood: give host1:port1,host2:port2.")
    parts = [match.groups(default="") for match in found if match]
    if any(port and not 0 < int(port) < 65536 for _, _, port in parts):
        refuse("DATABASE_URL has an impossible port: it must be from 1 to 65535.")
    ports = [port or "5432" for _, _, port in parts] if any(port for _, _, port in parts) else []
    several = {"HOST": ",".join(address or name for address, name, _ in parts), "PORT": ",".join(ports)}
    return f"{scheme}://{user}{at}several{rest[len(authority) :]}", several


def var_folder() -> Path:
    """What a checkout keeps between starts: the embedded server, the development key, collected static files."""
    return Path(os.environ.get("VAR_DIR") or Path(__file__).resolve().parent.parent / "var").absolute()


def embedded_folder() -> Path:
    return var_folder() / "postgres"


def embedded_database(data: Path) -> dict[str, Any]:
    """DATABASES entry of the embedded server in `data`, which runs when this returns."""
    try:
        from config import embedded
        from config.postgres import SUPERUSER, PostgresError, PostgresServer
    except ImportError as exc:
        refuse(f"DATABASE_URL is not set and {exc.name} is not installed: set DATABASE_URL, or run `make setup`.")
    try:
        server = PostgresServer(data)
        if _wants_database():
            if not server.exists():
                print(f"Creating a PostgreSQL server in {data} …", file=sys.stderr, flush=True)
            embedded.join(data, database=EMBEDDED_NAME)
    except (PostgresError, OSError) as exc:
        refuse(f"The embedded PostgreSQL server did not start: {exc} Or set DATABASE_URL to use another server.")
    return {"NAME": EMBEDDED_NAME, "USER": SUPERUSER, "HOST": server.host, "PORT": "5432"}


def _wants_database() -> bool:
    if Path(sys.argv[0]).name != "manage.py":
        return True
    return bool(sys.argv[1:]) and NEEDS_NO_DATABASE.isdisjoint([sys.argv[1], sys.argv[-1]])


def development_secret_key(path: Path) -> str:
    """A key of this checkout, so that sessions survive a restart; never used without DEBUG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix="secret_key.", delete=False) as draft:
            draft.write(secrets.token_urlsafe(50))
        try:
            # A link and not a rename: of two processes that start together the first one's key stands.
            os.link(draft.name, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft.name)
    return path.read_text().strip()


def require_hosts() -> None:
    """Refuse to serve a site that would answer every request with 400; commands and the worker need no names."""
    from django.conf import settings

    if not settings.ALLOWED_HOSTS:
        refuse("ALLOWED_HOSTS is not set: give the names that the site answers to, separated by commas.")


def load_urls() -> None:
    """Import what the URLs name now: the first request would do so, under ASGI on the event loop of all others."""
    from django.conf import settings

    import_module(settings.ROOT_URLCONF)
