"""Fixtures that more than one file uses: people, servers, browsers."""

from __future__ import annotations

import itertools
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from config.postgres import PostgresServer
from tests.support.chromium import chromium
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy
from tests.support.site import Site, manage

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from playwright.sync_api import Browser, BrowserContext, Page

TEMPLATE = "site_template"
DEMO_USER = "from django.contrib.auth.models import User; User.objects.create_superuser('demo', password='demo')"
_numbers = itertools.count()
# A duration above its bound, or something that had a time and did not happen in it; whatever else fails has failed.
TOO_SLOW = [r"^AssertionError: assert .*\d(\.\d+|e-\d+)\b[^'\"{]* <=? ", r"within [\d.]+ s\b", "Timeout"]


def pytest_configure() -> None:
    """What a shell runs in the background ignores SIGINT, and so would every program that a test starts and ends."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A bound on time holds for the code and for the machine: whoever misses it three times running is slow."""
    for item in items:
        if item.get_closest_marker("timed"):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=0.5, only_rerun=TOO_SLOW))


@pytest.fixture
def alice(db: None) -> User:
    from django.contrib.auth.models import User

    return User.objects.create_user("alice", password="alice")


@pytest.fixture
def bob(db: None) -> User:
    from django.contrib.auth.models import User

    return User.objects.create_user("bob", password="bob")


@pytest.fixture
def var() -> Iterator[Path]:
    """A VAR_DIR; not pytest's own folder, which closes itself to the user that PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="var-"))
    yield folder
    for data in folder.glob("**/postgres"):
        PostgresServer(data).kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _postgres_of_session() -> Iterator[ThrowawayPostgres]:
    with ThrowawayPostgres() as server:
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        manage("migrate", "--verbosity=0", database_url=server.url(TEMPLATE))
        manage("shell", "-c", DEMO_USER, database_url=server.url(TEMPLATE))
        yield server


@pytest.fixture
def postgres(_postgres_of_session: ThrowawayPostgres) -> Iterator[ThrowawayPostgres]:
    """A running PostgreSQL server that the test may stop, kill and freeze."""
    _postgres_of_session.thaw()
    _postgres_of_session.start()
    yield _postgres_of_session
    _postgres_of_session.thaw()
    _postgres_of_session.start()


@pytest.fixture
def database_url(postgres: ThrowawayPostgres) -> Iterator[str]:
    """A new, migrated database on `postgres` with the superuser demo/demo."""
    name = f"site_{next(_numbers)}"
    postgres.copy_database(TEMPLATE, name)
    yield postgres.url(name)
    postgres.thaw()
    postgres.start()
    postgres.drop_database(name)


@pytest.fixture
def proxy(postgres: ThrowawayPostgres) -> Iterator[Proxy]:
    """A network before `postgres`, to be broken."""
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def start_site(database_url: str) -> Iterator[Callable[..., Site]]:
    """`start_site(worker_class="asgi", CHAT_AGENT_DELAY_SECONDS="1")` serves the site on `database_url`."""
    with ExitStack() as stack:

        def start(**options: Any) -> Site:
            return stack.enter_context(Site(options.pop("url", database_url), **options))

        yield start


@pytest.fixture(scope="module")
def chromium_browser() -> Iterator[Browser]:
    """One browser for a file: Playwright runs an event loop in this thread, which other files' tests must not find."""
    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        # Django would take every query beside that loop for a mistake.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield browser


@pytest.fixture
def browser_context(chromium_browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile: nothing of another test is left in it."""
    context = chromium_browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(browser_context: BrowserContext) -> Page:
    return browser_context.new_page()
