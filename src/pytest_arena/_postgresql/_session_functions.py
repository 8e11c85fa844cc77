"""Finds functions that change the session.

A statement that calls such a function does not show the setting, the advisory lock or the temporary
table that the function creates. The function's text shows it.

A view, a default or another expression may change the session, too. The texts of functions and
expressions also show whether the database reads custom settings.
"""

# ruff: noqa: S608 - the condition is a constant

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._postgresql.drivers._session_state import (
    ALTERING_CALLS,
    NAMES,
    found_reader,
    reads_setting,
)
from pytest_arena._postgresql.journal._tables import PLAIN_SCHEMA
from pytest_arena._values import STATEMENT_START as START
from pytest_arena._values import without_comments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_arena._postgresql._control import Control

_ALTERING_STATEMENT = (
    r"(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|RESET|DISCARD|LISTEN|UNLISTEN|LOAD|"
    r"PREPARE|DECLARE\b(?=[^;]*\bHOLD)|"
    r"CREATE\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?)\b"
)
# A statement is at the start of a body, after another statement, after a word of PL/pgSQL, or at
# the start of a text that the function executes.
_ALTERS = re.compile(
    rf"{ALTERING_CALLS}|(?:\A|;|'|\b(?:BEGIN|THEN|ELSE|LOOP)\b){START}{_ALTERING_STATEMENT}",
    re.IGNORECASE | re.DOTALL,
)
_SETS = re.compile(
    r"\bset_config\s*\(|\bSET\s+(?:SESSION\s+|LOCAL\s+)?\w+\.\w+", re.IGNORECASE
)
_FUNCTIONS = f"""
SELECT p.proname::text,
    CASE p.prosrc WHEN '' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END
    || coalesce(' SET LOCAL ' || pg_catalog.array_to_string(p.proconfig, ' SET LOCAL '), ''),
    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid = p.oid),
    EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refobjid = p.oid
        AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.classid <> 'pg_catalog.pg_trigger'::pg_catalog.regclass)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.prokind IN ('f', 'p') AND l.lanname NOT IN ('c', 'internal') AND n.nspname !~ '^pg_'
AND n.nspname NOT IN ('information_schema', '{PLAIN_SCHEMA}')
"""
# The expressions of policies, views, rules, defaults, checks and trigger conditions. An index
# cannot read a setting, because the function is not immutable. PostgreSQL's objects have oids
# below 16384. The names at the end are those that ``reads_setting`` and ALTERING_CALLS look for.
_EXPRESSIONS = """
SELECT text FROM (
    SELECT pg_catalog.pg_get_expr(polqual, polrelid) AS text FROM pg_catalog.pg_policy
    UNION ALL SELECT pg_catalog.pg_get_expr(polwithcheck, polrelid) FROM pg_catalog.pg_policy
    UNION ALL SELECT pg_catalog.pg_get_ruledef(oid) FROM pg_catalog.pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef
    UNION ALL SELECT typdefault FROM pg_catalog.pg_type WHERE typdefault IS NOT NULL
    UNION ALL SELECT pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
        WHERE contype = 'c'
    UNION ALL SELECT pg_catalog.pg_get_triggerdef(oid) FROM pg_catalog.pg_trigger
        WHERE tgqual IS NOT NULL
) expressions
WHERE text ~* '(current_setting|set_config|advisory_lock|setseed|set_limit|isn_weak|dblink_connect)'
"""
_ANY_STATEMENT = re.compile("")
_WRITES = r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY)\b"


class SessionFunctions(NamedTuple):
    """Patterns of the statements that call such functions, None if the database has none."""

    changing: re.Pattern[str] | None
    naming: re.Pattern[str] | None
    setting: re.Pattern[str] | None  # also with SET LOCAL
    sources: tuple[str, ...]  # the texts of all functions


def session_functions(control: Control) -> SessionFunctions:
    """Read the functions of a database. Note whether it reads custom settings."""
    functions = []
    for name, source, is_trigger, is_used in control.rows(_FUNCTIONS):
        function = _Function(name, without_comments(source), is_trigger, is_used)
        functions.append(function)
    expressions = [text for (text,) in control.rows(_EXPRESSIONS)]
    sources = [function.source for function in functions]
    if any(map(reads_setting, expressions + sources)):
        found_reader.set()
    return SessionFunctions(
        _callers(functions, expressions, _ALTERS),
        _callers(functions, expressions, NAMES),
        _callers(functions, expressions, _SETS),
        tuple(sources),
    )


class _Function(NamedTuple):
    name: str
    source: str
    is_trigger: bool
    is_used: bool  # by an operator, aggregate, cast, check, default, view or policy


def _callers(
    functions: Sequence[_Function],
    expressions: Iterable[str],
    pattern: re.Pattern[str],
) -> re.Pattern[str] | None:
    """Return a pattern of the statements that call a function whose text matches.

    The pattern also matches calls of functions that call such a function. If a trigger calls such
    a function, the pattern matches each statement that writes. If an operator, aggregate, cast,
    check, default, view or policy calls such a function, or if an expression matches, it matches
    each statement.
    """
    if any(map(pattern.search, expressions)):
        return _ANY_STATEMENT
    names = {function.name for function in functions if pattern.search(function.source)}
    while True:
        calls = _calls(names)
        if calls is None:
            return None
        callers = {
            function.name for function in functions if calls.search(function.source)
        }
        if callers <= names:
            break
        names |= callers
    if any(function.is_used and function.name in names for function in functions):
        return _ANY_STATEMENT
    if any(function.is_trigger and function.name in names for function in functions):
        return re.compile(f"{calls.pattern}|{_WRITES}", re.IGNORECASE)
    return calls


def _calls(names: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = "|".join(map(re.escape, sorted(names)))
    if not alternatives:
        return None
    return re.compile(rf'(?<!\w)(?:{alternatives})"?\s*\(', re.IGNORECASE)
