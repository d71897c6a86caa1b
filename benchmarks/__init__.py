"""Measurements of dbresilience beside what people use today; the figures are in RESULTS.md."""
