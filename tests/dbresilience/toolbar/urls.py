"""The views and the toolbar's own, which can be imported only where it is installed."""

from __future__ import annotations

from django.urls import include, path

from .site import urlpatterns as views

urlpatterns = [*views, path("__debug__/", include("debug_toolbar.urls"))]
