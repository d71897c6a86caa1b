"""The dashboard's page and the figures that it asks for once a second."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_safe
from django.views.defaults import permission_denied

from dbresilience.operators import OrdersUnusable
from dbresilience.overview import Overview, overview
from dbresilience.resources import get_database_resources
from dbresilience.series import WINDOWS, series

from . import outage_pass
from .access import Decision, access

SERVER_TIMEOUT_SECONDS = 0.3
TEMPLATE = "dbresilience/dashboard.html"


class DashboardAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own cannot be subscripted
    """The dashboard instead of a list of objects.

    Its own views, because `AdminSite.admin_view` asks the database before anything can be shown.
    """

    def get_urls(self) -> list[URLPattern]:
        """The page, under the name of a list of objects, and its figures."""
        return [
            path("", self._view(self.page), name="dbresilience_dashboard_changelist"),
            path("data", self._view(self.data), name="dbresilience_dashboard_data"),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds anything."""
        return False

    def page(self, request: HttpRequest, granted: Decision) -> HttpResponse:
        """Show the page; while the database is away without the menus of admin, which it would be asked for."""
        context = {"title": "Database", "databases": _databases(), "data_url": self._url("data")}
        if granted is Decision.GRANTED:
            return render(request, TEMPLATE, {**self.admin_site.each_context(request), **context})
        return HttpResponse(render_to_string(TEMPLATE, {**context, "is_nav_sidebar_enabled": False, "by_pass": True}))

    def data(self, request: HttpRequest, granted: Decision) -> HttpResponse:
        """Answer with the state of now and the points of the charts that the page does not have yet."""
        try:
            alias, window, after = _wanted(request)
        except LookupError:
            return JsonResponse({"detail": "No database here uses dbresilience."}, status=404)
        except ValueError:
            return JsonResponse({"detail": "database, window or after is not one that there is."}, status=400)
        try:
            found = overview(get_database_resources(alias), server_timeout_seconds=SERVER_TIMEOUT_SECONDS)
        except OrdersUnusable:
            return JsonResponse(
                {"detail": "The folder of the histories cannot be used: see manage.py dbresilience status."}, status=500
            )
        facts = found.facts()
        facts["by_pass"] = granted is Decision.BY_PASS
        facts["series"] = _series(found, request.GET.get("process", ""), window, after)
        return JsonResponse(facts)

    def _view(self, show: Any) -> Any:
        def view(request: HttpRequest) -> HttpResponseBase:
            granted = access(request, self._may_see)
            response: HttpResponseBase
            if granted is Decision.REFUSED:
                response = self._refuse(request, is_page=show == self.page)
                outage_pass.take_back(request, response, self._url("changelist"))
            else:
                response = show(request, granted)
                if granted is Decision.GRANTED and not outage_pass.is_fresh(request):
                    outage_pass.give(request, response, self._url("changelist"))
            response["Cache-Control"] = "no-store"
            return response

        # A project's middleware may ask for the user before a view that does not say so.
        view.login_required = False  # type: ignore[attr-defined]
        return _without_transactions(require_safe(view))

    def _may_see(self, request: HttpRequest) -> bool:
        return self.admin_site.has_permission(request) and self.has_view_permission(request)

    def _refuse(self, request: HttpRequest, *, is_page: bool) -> HttpResponse:
        if not is_page:
            return JsonResponse({"detail": "Log in as somebody who may view the dashboard."}, status=403)
        if request.user.is_authenticated:
            return permission_denied(request, PermissionDenied())
        return redirect_to_login(request.get_full_path(), reverse("admin:login", current_app=self.admin_site.name))

    def _url(self, name: str) -> str:
        return reverse(f"admin:dbresilience_dashboard_{name}", current_app=self.admin_site.name)


def _without_transactions(view: Any) -> Any:
    """Spare `view` ATOMIC_REQUESTS of every database: Django would begin there first, and any of them may be away."""
    for alias in connections:
        view = transaction.non_atomic_requests(alias)(view)
    return view


def _databases() -> list[str]:
    return [alias for alias in connections if hasattr(type(connections[alias]), "resources")]


def _wanted(request: HttpRequest) -> tuple[str, int, float]:
    databases = _databases()
    if not databases:
        raise LookupError
    alias, window = request.GET.get("database", databases[0]), int(request.GET.get("window", "300"))
    if alias not in databases or window not in WINDOWS:
        raise ValueError
    after = float(request.GET.get("after", "0"))
    if not 0 <= after < 1e12:
        raise ValueError
    return alias, window, after


def _series(found: Overview, process_id: str, window: int, after: float) -> dict[str, Any]:
    processes = [each for each in found.machine.processes if process_id in ("", each.id)]
    return series(processes, window_seconds=window, now=found.machine.now, after=after)
