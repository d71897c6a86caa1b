"""Real servers for the tests: PostgreSQL that can be stopped and killed, gunicorn, Chromium."""
