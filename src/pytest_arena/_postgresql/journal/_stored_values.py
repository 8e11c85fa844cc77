"""Finds stored values that may change when restored.

PostgreSQL stores results of functions in indexes, in generated columns and in the choice of a
partition. It trusts the word IMMUTABLE. When the journal restores a row, PostgreSQL calls the
function again, in another session and at another time. A function that reads the time zone or a
table may return another value then. No trigger sees that.
"""

# ruff: noqa: S608 - names are written by literal(), conditions are constants

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal
from pytest_arena._postgresql.journal._tables import APPS_OWN, JournalGap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql._control import Control


def unsteady_values(control: Control) -> Iterator[JournalGap]:
    """Yield a gap for each function whose stored values may depend on more than its arguments.

    A function in SQL or PL/pgSQL must contain only harmless words. pytest-arena trusts functions
    in C and PostgreSQL's functions. Cost: one round trip, and two more for each such function.
    """
    for holder, name, language, definition in control.rows(_STORED):
        reason = _FunctionReader(control).doubt(language, definition)
        if reason:
            yield JournalGap(
                f"{holder} stores values of the function {name}, which may depend on more than its "
                f"arguments ({reason}): a restored row could get another value",
                is_fatal=True,
            )


class _FunctionReader:
    """Reads the text of a function and of the functions that it calls."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._names: set[str] = set()  # the functions that were read or will be read

    def doubt(self, language: str, definition: str) -> str:
        """Return the first word of a function whose value may differ between sessions, or ""."""
        if language not in {"sql", "plpgsql"}:
            return f"it is written in {language}"
        text = _COMMENT.sub(" ", definition)
        text = _NAMED_CONFIGURATION.sub(" ", text)
        text = _LITERAL.sub("''", text)
        dependent = _DEPENDENT.search(_DISTINCT.sub(" ", text))
        if dependent is not None:
            return dependent[0].upper()
        calls = set(_CALL.findall(text.lower()))
        new = calls - self._names - _OF_ARGUMENTS
        self._names |= new
        return self._doubt_of_calls(sorted(new))

    def _doubt_of_calls(self, names: list[str]) -> str:
        if not names:
            return ""
        question = _CALLED.format(names=", ".join(map(literal, names)))
        rows = self._control.rows(question)
        for name, is_server, volatility, language, definition in rows:
            is_compiled = language in {"c", "internal"}
            if is_server and volatility != "i":
                return f"{name}()"
            if is_compiled and volatility == "v":
                return f"{name}()"
            if is_server or is_compiled:
                continue
            reason = self.doubt(language, definition)
            if reason:
                return f"{name}(): {reason}"
        return ""


_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_DISTINCT = re.compile(r"\bDISTINCT\s+FROM\b", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*'")
# With a configuration as the first argument, the result depends only on the arguments.
_NAMED_CONFIGURATION = re.compile(
    r"\b(?:to_tsvector|(?:plain|phrase|websearch_)?to_tsquery)\s*\(\s*'\w+'",
    re.IGNORECASE,
)
# Words for a table, a time or a setting. A FROM as in extract(… FROM …) usually reads a time.
_DEPENDENT = re.compile(
    r"\b(?:from|join|table|using|execute|perform|into|timestamp\w*|time|timetz|date|interval|zone|"
    r"money|current_\w+|session_user|system_user|localtime\w*|reg(?:class|proc|type|role)\w*)\b",
    re.IGNORECASE,
)
_CALL = re.compile(r"([a-z_][\w$]*)\"?\s*\(")
# The result of these functions depends on the arguments alone. Some are not IMMUTABLE, because an
# argument might be a time, or because of the database's encoding.
_OF_ARGUMENTS = {
    "array_to_string",
    "concat",
    "concat_ws",
    "convert_from",
    "convert_to",
    "format",
    "generate_series",
    "length",
    "numeric",
    "to_json",
    "to_jsonb",
}
_DEFINITION = (
    "CASE WHEN l.lanname IN ('sql', 'plpgsql') AND p.prokind = 'f' "
    "THEN pg_catalog.pg_get_functiondef(p.oid) ELSE '' END"
)
_STORED = f"""
SELECT DISTINCT n.nspname || '.' || c.relname, p.pronamespace::regnamespace || '.' || p.proname,
    l.lanname::text, {_DEFINITION}
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = p.oid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_attrdef f
    ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
-- Before PostgreSQL 15 the column itself depends on the function, not its expression.
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = coalesce(f.adrelid, d.objid)
    AND a.attnum = coalesce(f.adnum, d.objsubid)
JOIN pg_catalog.pg_class c ON c.oid = CASE
    WHEN d.classid = 'pg_catalog.pg_class'::regclass THEN d.objid ELSE f.adrelid END
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (a.attgenerated = 's' OR f.oid IS NULL AND c.relkind IN ('i', 'I', 'p'))
AND l.lanname NOT IN ('c', 'internal') AND {APPS_OWN}
ORDER BY 1, 2
"""
_CALLED = f"""
SELECT p.proname::text, p.pronamespace = 'pg_catalog'::regnamespace, p.provolatile::text,
    l.lanname::text, {_DEFINITION}
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE lower(p.proname) IN ({{names}}) ORDER BY p.oid
"""
