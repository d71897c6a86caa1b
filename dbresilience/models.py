"""No table: only the name under which Django admin lists the dashboard and grants the permission to see it."""

from __future__ import annotations

from django.db import models

from .process import keep


class _NoObjects(models.Manager["Dashboard"]):
    """Asks nothing: `dumpdata` would look into a table that is not there."""

    def get_queryset(self) -> models.QuerySet[Dashboard]:
        return super().get_queryset().none()


class Dashboard(models.Model):
    """Brings the permission ``dbresilience.view_dashboard``; there are no objects of it."""

    alias: models.TextField[str, str] = models.TextField(primary_key=True)

    objects = _NoObjects()

    class Meta:
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view",)
        verbose_name = verbose_name_plural = "dashboard"

    def __str__(self) -> str:
        return self.alias


keep(globals(), "Dashboard")
