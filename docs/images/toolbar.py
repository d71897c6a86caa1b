"""Takes the pictures of the debug toolbar's panel: `python -m docs.images.toolbar` (needs Chromium).

The page is the chat's own, asked by somebody who is logged in, on a server and a site that end with this program.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.chromium import chromium
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site, manage

HERE = Path(__file__).resolve().parent
DEMO_USER = "from django.contrib.auth.models import User; User.objects.create_superuser('demo', password='demo')"
WIDTH, HEIGHT = 1280, 760


def take(folder: Path) -> None:
    """Write toolbar-light.png and toolbar-dark.png to `folder`."""
    with ThrowawayPostgres() as server:
        server.execute("CREATE DATABASE site")
        url = server.url("site")
        manage("migrate", "--verbosity=0", database_url=url)
        manage("shell", "-c", DEMO_USER, database_url=url)
        with Site(url, DEBUG="1", DEBUG_TOOLBAR="1", ALLOWED_HOSTS="127.0.0.1") as site, chromium() as browser:
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce"
                )
                page = context.new_page()
                page.goto(f"{site.url}/admin/login/?next=/admin/auth/user/")
                page.get_by_label("Username").fill("demo")
                page.get_by_label("Password").fill("demo")
                page.get_by_role("button", name="Log in").click()
                for _ in range(2):  # once to warm up
                    page.goto(f"{site.url}/admin/auth/user/1/change/")
                page.locator("#djShowToolBarButton").click()
                page.locator("#djdt-ConnectionsPanel a").click()
                page.locator("#ConnectionsPanel table").first.wait_for()
                page.screenshot(path=folder / f"toolbar-{scheme}.png")
                context.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
