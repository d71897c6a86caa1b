"""Tests of Django's that our backend is meant to fail: by the end of their name, with the reason."""

from __future__ import annotations

POOL_BY_DEFAULT = "It asks for a connection without a pool, and ENGINE alone brings one here."
LOOKED_AT = "It counts the queries of CONN_HEALTH_CHECKS; here a connection is looked at without one."
AT_ONCE = "It expects a connection to stay in hand after a query; here it is given back."
SWALLOWED = "It swallows an error within a transaction and goes on; here COMMIT raises, since nothing of it was stored."

FEW_AS_VALUES = "It expects two rows to be inserted as arrays; here five are not, since VALUES is quicker."

KNOWN: dict[str, str] = {
    "Tests.test_connect_pool": "It expects Django's pool object and its sizes.",
    "Tests.test_pooling_health_checks": LOOKED_AT,
    "ConnectionHealthChecksTests.test_health_checks_enabled": LOOKED_AT,
    "ConnectionHealthChecksTests.test_health_checks_enabled_errors_occurred": LOOKED_AT,
    "ConnectionHealthChecksTests.test_health_checks_disabled": LOOKED_AT,
    "ConnectionHealthChecksTests.test_set_autocommit_health_checks_enabled": LOOKED_AT,
    "ConnectionCreatedSignalTest.test_signal": "It expects connection_created for each lease, not each connection.",
    "ThreadTests.test_default_connection_thread_local": AT_ONCE,
    "AssertNumQueriesUponConnectionTests.test_ignores_connection_configuration_queries": AT_ONCE,
    "BulkCreateUnnestTests.test_unnest_eligible": FEW_AS_VALUES,
    "BulkCreateUnnestTests.test_unnest_eligible_foreign_keys": FEW_AS_VALUES,
    "ValidateConstraintTests.test_validate": SWALLOWED,
    "SchemaTests.test_alter_array_field_decrease_base_field_length": SWALLOWED,
    "SchemaTests.test_alter_array_field_decrease_nested_base_field_length": SWALLOWED,
    "SchemaTests.test_alter_char_field_decrease_length": SWALLOWED,
    "SchemaTests.test_func_index_nondeterministic": SWALLOWED,
    "SchemaTests.test_func_unique_constraint_nondeterministic": SWALLOWED,
}
