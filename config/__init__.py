"""The site: settings, URLs, entry points and the PostgreSQL server of development."""
