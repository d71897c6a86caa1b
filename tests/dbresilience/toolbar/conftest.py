"""A site of a test with the toolbar on, served in this process by Django's own handlers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.proxy import Proxy

from . import site

pytest.importorskip("debug_toolbar")

PANEL = "dbresilience.contrib.toolbar.ConnectionsPanel"


class Visits:
    """Makes requests, and has what the toolbar kept of each, by its path."""

    def __init__(self, panel_id: str = "ConnectionsPanel") -> None:
        self.toolbars: dict[str, Any] = {}
        self.panel_id = panel_id

    def note(self, sender: Any, toolbar: Any, **details: Any) -> None:
        self.toolbars[sender.path] = toolbar

    def wsgi(self, path: str) -> str:
        """What a server does with a request: its body read to the end, and closed."""
        environ: dict[str, Any] = {"PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost"}
        setup_testing_defaults(environ)
        status = []
        response = WSGIHandler()(environ, lambda line, headers: status.append(line))
        try:
            body = b"".join(response)
        finally:
            response.close()
        assert status[0].startswith("200"), body
        return body.decode()

    async def asgi(self, path: str) -> str:
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", b"localhost")],
            "asgi": {"version": "3.0"}, "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        }  # fmt: skip
        communicator = ApplicationCommunicator(ASGIHandler(), scope)
        await communicator.send_input({"type": "http.request", "body": b""})
        body, started = b"", await communicator.receive_output(timeout=10)
        assert started["status"] == 200, started
        while True:
            message = await communicator.receive_output(timeout=10)
            body += message.get("body", b"")
            if not message.get("more_body"):
                await communicator.wait(timeout=10)
                return body.decode()

    def panel(self, path: str, panel_id: str | None = None) -> Any:
        return self.toolbars[path].get_panel_by_id(panel_id or self.panel_id)

    def stats(self, path: str) -> dict[str, Any]:
        """What the panel shows, as it comes back from the toolbar's store."""
        found: dict[str, Any] = json.loads(json.dumps(self.panel(path).get_stats()))
        return found


@pytest.fixture
def visits(settings: Any) -> Iterator[Visits]:
    settings.DEBUG = True
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "debug_toolbar"]
    from debug_toolbar.settings import PANELS_DEFAULTS
    from debug_toolbar.toolbar import DebugToolbar

    settings.DEBUG_TOOLBAR_CONFIG = {"IS_RUNNING_TESTS": False, "DISABLE_PANELS": set()}
    settings.DEBUG_TOOLBAR_PANELS = [*PANELS_DEFAULTS, PANEL]
    settings.MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
    settings.ROOT_URLCONF = "tests.dbresilience.toolbar.urls"
    DebugToolbar._panel_classes = DebugToolbar._urlpatterns = None
    for panel in DebugToolbar.get_panel_classes():
        panel.ready()
    visits = Visits()
    DebugToolbar._created.connect(visits.note)
    yield visits
    DebugToolbar._created.disconnect(visits.note)
    DebugToolbar._panel_classes = DebugToolbar._urlpatterns = None


@pytest.fixture
def database(
    proxy: Proxy, make_wrapper: MakeWrapper, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DatabaseWrapper]:
    """`database(slow_query_seconds=0.1)`: what the views ask, behind the proxy, with a connection open."""

    def make(**options: Any) -> DatabaseWrapper:
        wrapper = make_wrapper(url=proxy.url(database_url), **options)
        monkeypatch.setattr(site, "alias", wrapper.alias)
        run(wrapper, "SELECT 1")
        return wrapper

    return make
