"""Finds functions that change settings, for ``rollback``, which undoes their changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._values import without_comments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_arena._postgresql._control import Control

_SETS = re.compile(
    r"\bset_config\s*\(|\bSET\s+(?:SESSION\s+|LOCAL\s+)?\w+\.\w+", re.IGNORECASE
)
_FUNCTIONS = """
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
AND n.nspname NOT IN ('information_schema')
"""
_ANY_STATEMENT = re.compile("")
_WRITES = r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY)\b"


class SessionFunctions(NamedTuple):
    """Patterns of the statements that call such functions, None if the database has none."""

    setting: re.Pattern[str] | None  # also with SET LOCAL
    sources: tuple[str, ...]  # the texts of all functions


def session_functions(control: Control) -> SessionFunctions:
    """Read the functions of a database."""
    functions = []
    for name, source, is_trigger, is_used in control.rows(_FUNCTIONS):
        function = _Function(name, without_comments(source), is_trigger, is_used)
        functions.append(function)
    sources = [function.source for function in functions]
    return SessionFunctions(_callers(functions, _SETS), tuple(sources))


class _Function(NamedTuple):
    name: str
    source: str
    is_trigger: bool
    is_used: bool  # by an operator, aggregate, cast, check, default, view or policy


def _callers(
    functions: Sequence[_Function],
    pattern: re.Pattern[str],
) -> re.Pattern[str] | None:
    """Return a pattern of the statements that call a function whose text matches.

    The pattern also matches calls of functions that call such a function. If a trigger calls such
    a function, the pattern matches each statement that writes. If an operator, aggregate, cast,
    check, default, view or policy calls such a function, it matches each statement.
    """
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
