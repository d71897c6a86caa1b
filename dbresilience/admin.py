"""Puts the dashboard into Django admin's own site; another AdminSite registers the same two names."""

from __future__ import annotations

from django.contrib import admin

from .contrib.dashboard.pages import DashboardAdmin
from .models import Dashboard

if not admin.site.is_registered(Dashboard):  # this module may be executed again
    admin.site.register(Dashboard, DashboardAdmin)
