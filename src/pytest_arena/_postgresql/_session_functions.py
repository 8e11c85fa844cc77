"""Finds functions that change the session.

A statement that calls such a function does not show the setting, the advisory lock or the temporary
table that the function creates. The function's text shows it.
"""

# ruff: noqa: S608 - the condition is a constant

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena._postgresql.drivers._session_state import ALTERING_CALLS
from pytest_arena._postgresql.journal._tables import PLAIN_SCHEMA
from pytest_arena._values import STATEMENT_START as START
from pytest_arena._values import without_comments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._postgresql._control import Control

_ALTERING_STATEMENT = (
    r"(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|RESET|DISCARD|LISTEN|UNLISTEN|LOAD|"
    r"CREATE\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?)\b"
)
# A statement begins a body, follows another one or a word of PL/pgSQL, or is a text to execute.
_ALTERS = re.compile(
    rf"{ALTERING_CALLS}|(?:\A|;|'|\b(?:BEGIN|THEN|ELSE|LOOP)\b){START}{_ALTERING_STATEMENT}",
    re.IGNORECASE | re.DOTALL,
)
_FUNCTIONS = f"""
SELECT p.proname::text,
    CASE p.prosrc WHEN '' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END,
    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid = p.oid),
    EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refobjid = p.oid
        AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.classid <> 'pg_catalog.pg_trigger'::pg_catalog.regclass)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.prokind IN ('f', 'p') AND l.lanname NOT IN ('c', 'internal') AND n.nspname !~ '^pg_'
AND n.nspname NOT IN ('information_schema', '{PLAIN_SCHEMA}')
"""
_ANY_STATEMENT = re.compile("")
_WRITES = r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY)\b"


def session_functions(control: Control) -> re.Pattern[str] | None:
    """Return a pattern of the statements that call such a function, None if there is none.

    The pattern also finds calls of a function that calls one. If a trigger calls one, each
    statement that writes counts. If an operator, aggregate, cast, check, default, view or policy
    calls one, each statement counts.
    """
    functions = [
        (name, without_comments(source), is_trigger, is_used)
        for name, source, is_trigger, is_used in control.rows(_FUNCTIONS)
    ]
    names = {name for name, source, *_ in functions if _ALTERS.search(source)}
    while True:
        calls = _calls(names)
        if calls is None:
            return None
        callers = {name for name, source, *_ in functions if calls.search(source)}
        if callers <= names:
            break
        names |= callers
    if any(is_used and name in names for name, _, _, is_used in functions):
        return _ANY_STATEMENT
    if any(is_trigger and name in names for name, _, is_trigger, _ in functions):
        return re.compile(f"{calls.pattern}|{_WRITES}", re.IGNORECASE)
    return calls


def _calls(names: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = "|".join(map(re.escape, sorted(names)))
    if not alternatives:
        return None
    return re.compile(rf'(?<!\w)(?:{alternatives})"?\s*\(', re.IGNORECASE)
