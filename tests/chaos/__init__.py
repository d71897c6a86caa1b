"""Many people chat while PostgreSQL is killed, restarted, frozen and cut off; afterwards everything is counted."""
