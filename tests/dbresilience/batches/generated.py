"""How many examples the property tests of this folder generate, and how: BATCHES_EXAMPLES=2000 asks for more."""

from __future__ import annotations

import os

import hypothesis

# A failure prints the blob that plays it again, so no folder of examples is kept; a server has no steady pace.
generated = hypothesis.settings(
    max_examples=int(os.environ.get("BATCHES_EXAMPLES", "100")),
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=True,
)
