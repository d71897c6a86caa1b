"""Which functions a SELECT may call and still be only a read.

Named are those of PostgreSQL, its contrib modules and SQL itself that store nothing. What they may
leave on the session, such as a lock, is the business of `session_state`. Any other function may store
something, so a SELECT that calls one is taken for a write.
"""

from __future__ import annotations

import string

_LETTERS = string.ascii_letters + string.digits + "_$"
_BEFORE_A_GROUP = frozenset("(,=<>+-*/%|&^~!@#?:[;'")
_QUALIFIES = (*_LETTERS, ".")

# Words of SQL and types, which may stand before a parenthesis, too.
_SYNTAX = """
    all and any array as between bit by case cast char character conflict cube decimal distinct else end except
    exists explain extract false filter float from full group grouping having ilike in inner intersect interval is
    isnull join lateral left like limit materialized natural not notnull null numeric of offset on only or order
    outer over overlaps partition precision range right rollup row rows select sets similar some symmetric then time
    timestamp timestamptz to true union unknown using values varbit varchar varying when where window with within
    xmlelement xmlforest
"""
_FUNCTIONS = """
    abs acos acosd acosh age array_agg array_append array_cat array_dims array_length array_lower array_ndims
    array_position array_positions array_prepend array_remove array_replace array_to_json array_to_string array_upper
    ascii asin asind atan atan2 atand avg
    bit_and bit_count bit_length bit_or bit_xor bool_and bool_or bpchar btrim
    cardinality cbrt ceil ceiling char_length character_length chr clock_timestamp coalesce col_description concat
    concat_ws convert convert_from convert_to corr cos cosd cosh cot cotd count covar_pop covar_samp cume_dist
    current_catalog current_database current_query current_role current_schema current_schemas current_setting
    current_user
    date date_add date_bin date_part date_subtract date_trunc daterange datemultirange decode degrees dense_rank
    difference div dmetaphone dmetaphone_alt
    encode every exp factorial family first_value floor format format_type
    gcd gen_random_uuid generate_series generate_subscripts get_bit get_byte greatest
    has_column_privilege has_database_privilege has_schema_privilege has_sequence_privilege has_table_privilege
    hashtext hashtextextended host hostmask hstore hstore_to_json hstore_to_jsonb
    initcap inet_client_addr inet_client_port inet_server_addr inet_server_port int4range int4multirange int8range
    int8multirange isempty isfinite
    json json_agg json_array json_array_elements json_array_elements_text json_array_length json_arrayagg
    json_build_array json_build_object json_each json_each_text json_extract_path json_extract_path_text json_object
    json_object_agg json_object_keys json_objectagg json_populate_record json_populate_recordset json_strip_nulls
    json_to_record json_to_recordset json_typeof json_value json_query json_exists json_table
    jsonb jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object
    jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
    jsonb_path_query_first jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax
    jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours justify_interval
    lag last_value lcm lead least left length levenshtein levenshtein_less_equal ln localtime localtimestamp log log10
    lower lower_inc lower_inf lpad ltrim
    make_date make_interval make_time make_timestamp make_timestamptz masklen max md5 metaphone min mod mode multirange
    netmask network normalize now nth_value ntile nullif num_nonnulls num_nulls numnode numrange nummultirange
    obj_description octet_length overlay
    parse_ident percent_rank percentile_cont percentile_disc pg_backend_pid pg_blocking_pids pg_client_encoding
    pg_column_size pg_conf_load_time pg_control_checkpoint pg_control_system pg_current_snapshot
    pg_current_wal_insert_lsn pg_current_wal_lsn pg_current_xact_id_if_assigned pg_database_size pg_encoding_to_char
    pg_function_is_visible pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_indexdef pg_get_keywords
    pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_indexes_size
    pg_is_in_recovery pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
    pg_postmaster_start_time pg_relation_size pg_size_bytes pg_size_pretty pg_sleep pg_snapshot_xmax pg_snapshot_xmin
    pg_stat_get_activity pg_table_is_visible pg_table_size pg_tablespace_size pg_total_relation_size
    pg_type_is_visible pg_typeof pg_visible_in_snapshot pg_wal_lsn_diff pg_walfile_name pg_xact_status
    pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
    pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared set_config
    phraseto_tsquery pi plainto_tsquery position pow power
    querytree quote_ident quote_literal quote_nullable radians random rank regexp_count regexp_instr regexp_like
    regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse
    round row_number row_to_json rpad rtrim
    scale session_user setweight sha224 sha256 sha384 sha512 shobj_description show_limit show_trgm sign similarity sin
    sind sinh soundex split_part sqrt starts_with statement_timestamp stddev stddev_pop stddev_samp
    strict_word_similarity string_agg string_to_array string_to_table strip strpos substr substring sum
    tan tand tanh text timeofday timezone to_ascii to_char to_date to_hex to_json to_jsonb to_number to_regclass
    to_regproc to_regtype to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trim_array
    trim_scale trunc ts_debug ts_delete ts_filter ts_headline ts_lexize ts_rank ts_rank_cd ts_rewrite ts_stat tsquery
    tsquery_phrase tsrange tsmultirange tstzrange tstzmultirange tsvector tsvector_to_array txid_current_if_assigned
    txid_status
    unaccent unistr unnest upper upper_inc upper_inf uuid uuid_extract_timestamp uuid_extract_version
    uuid_generate_v1 uuid_generate_v4 uuidv4 uuidv7 var_pop var_samp variance version websearch_to_tsquery
    width_bucket word_similarity xmlagg xmlexists xpath
    akeys avals delete each exist slice skeys svals
"""
_PURE = frozenset(_SYNTAX.split()) | frozenset(_FUNCTIONS.split())


def calls_only_pure_functions(text: str) -> bool:
    """Whether every function that `text` calls is known to change nothing.

    What looks like a call within a literal counts, too, and what stands before a parenthesis as a quoted name or a
    comment is unknown: seeing too much is harmless.
    """
    pieces = text.split("(")
    del pieces[-1]
    for piece in pieces:
        before = piece.rstrip()
        if not before:
            continue
        rest = before.rstrip(_LETTERS)
        word = before[len(rest) :].lower()
        if "--" in before or before.endswith("*/") or rest[-1:].isalnum():
            return False
        if word not in _PURE if word else before[-1] not in _BEFORE_A_GROUP:
            return False
        rest = rest.rstrip()
        if rest.endswith("."):  # somebody's own function may have the name of a harmless one
            schema = rest[:-1].rstrip()
            if not schema.lower().endswith("pg_catalog") or schema[-11:-10] in _QUALIFIES:
                return False
    return True
