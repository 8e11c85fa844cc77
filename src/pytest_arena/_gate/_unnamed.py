"""Recognizes statements that may write and name no table."""

import re
from functools import lru_cache

from pytest_arena._values import STATEMENT_START as START
from pytest_arena._values import without_comments

# Kinds of statements. PostgreSQL gives a transaction an id for locks and temporary tables, too.
LOCKS = "locks"
TEMPORARY = "temporary"
MAY_WRITE = "may write"
WRITES = "writes"
NOTIFIES = "notifies"


def at_start(pattern: str) -> re.Pattern[str]:
    """Return a pattern that matches at the first word of a statement."""
    return re.compile(START + pattern, re.IGNORECASE | re.DOTALL)


_DEFINES = r"(?:CREATE|ALTER|DROP)\b"
_KINDS = (
    (
        at_start(
            r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b"
        ),
        TEMPORARY,
    ),
    (at_start(rf"{_DEFINES}[^;]*?\bIF\s+(?:NOT\s+)?EXISTS\b"), MAY_WRITE),
    (
        at_start(rf"(?:{_DEFINES}|(?:TRUNCATE|COMMENT|GRANT|REVOKE|REFRESH)\b)"),
        WRITES,
    ),
    (
        at_start(
            r"SELECT\b[^;'\"]*?\bINTO\b(?!\s+(?:(?:LOCAL|GLOBAL)\s+)?TEMP(?:ORARY)?\b)"
        ),
        WRITES,
    ),
    (at_start(r"COPY\s[^()]*(?:\([^()]*\)\s*)?FROM\b"), WRITES),
    (at_start(r"NOTIFY\b"), NOTIFIES),
    (at_start(r"(?:DO|CALL|EXECUTE)\b"), MAY_WRITE),
    (at_start(r"LOCK\b"), LOCKS),
)
_FIRST_WORDS = at_start(r"(?P<words>DO\b|[\w.\"]+(?:\s+[\w.\"]+){0,2})")
_QUERY = at_start(r"(?:SELECT|WITH|VALUES)\b")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_LOCKS = re.compile(
    r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b"
    r"|\b(?:nextval|setval|txid_current|pg_current_xact_id)\s*\(",
    re.IGNORECASE,
)
_PG_NOTIFY = re.compile(r"\bpg_notify\s*\(", re.IGNORECASE)
_CALL = re.compile(r'([A-Za-z_][\w$]*)"?\s*\(')

# Words before a parenthesis that are no functions.
_WORDS = """
    all and any array as between both by case cast char character check coalesce collate cross
    decimal distinct else end except exists extract filter float from full greatest group grouping
    having in inner intersect interval is join lateral leading least left like limit materialized
    not nullif numeric offset on or order over overlay partition position precision recursive right
    row rows select set sets some substring symmetric then time timestamp treat trim union unique
    using values varchar varying when where with within
"""
# Functions that read. If a query calls another function, and its transaction ends without a commit,
# pytest-arena asks the server whether it has written.
_FUNCTIONS = """
    abs age avg bit_and bit_or bool_and bool_or btrim cardinality ceil ceiling chr clock_timestamp
    concat concat_ws corr count cume_dist currval date datetime decode dense_rank encode every exp
    first_value floor format gen_random_uuid generate_series generate_subscripts group_concat
    initcap isfinite json julianday lag last_value lastval lead length ln log lower lpad ltrim
    make_date make_interval make_time make_timestamp make_timestamptz max md5 min mod mode now
    nth_value ntile octet_length percent_rank percentile_cont percentile_disc pi power random rank
    repeat replace reverse round row_number row_to_json rpad rtrim set_config setseed sha256 sign
    similarity split_part sqrt statement_timestamp stddev strftime string_agg strpos substr sum
    timeofday to_char to_date to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector total
    translate trunc typeof unnest upper uuid_generate_v4 variance version width_bucket
    word_similarity
"""
_READING = frozenset(f"{_WORDS} {_FUNCTIONS}".split())
_READING_PREFIXES = (
    *(
        "array_",
        "current_",
        "date_",
        "inet_",
        "json_",
        "jsonb_",
        "pg_",
        "quote_",
        "regexp_",
    ),
    *("st_", "ts_", "websearch_to_", "plainto_", "phraseto_"),
)


@lru_cache(1024)
def unnamed_write(statement: str) -> tuple[str, str]:
    """Return the kind of a statement that names no table, and words for it, else two times ""."""
    statement = without_comments(statement).lstrip(" \n(")
    words = _FIRST_WORDS.match(statement)
    if words is None:
        return "", ""
    for pattern, kind in _KINDS:
        if pattern.match(statement):
            return kind, f"ran {words['words'].removesuffix(' FROM')}"
    if _QUERY.match(statement):
        return _of_query(_TEXT.sub("''", statement))
    return "", ""


def _of_query(query: str) -> tuple[str, str]:
    if _LOCKS.search(query):
        return LOCKS, ""
    if _PG_NOTIFY.search(query):
        return NOTIFIES, "called pg_notify()"
    for name in _CALL.findall(query):
        function = name.lower()
        if function not in _READING and not function.startswith(_READING_PREFIXES):
            return MAY_WRITE, f"called {name}()"
    return "", ""
