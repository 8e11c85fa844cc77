"""Builds templates with a journal, if the server allows one.

Such a template is a copy of another template, with the journal installed.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, identifier, open_control
from pytest_arena._postgresql._templates import derived
from pytest_arena._postgresql.journal._capture import install
from pytest_arena._postgresql.journal._server import BE_REPLICA
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from pytest_arena._postgresql.journal._tables import JournalGap
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address


_GRANT_SINCE = 15  # a version of PostgreSQL
_NO_LOCK = "53200"  # no memory for another lock
_ROLE_AND_VERSION = (
    "SELECT current_user::text, current_setting('server_version_num')::int / 10000"
)
# Checks on a temporary table whether a trigger records a write under session_replication_role.
_TRIAL = """
CREATE TEMP TABLE arena_trial (n int) ON COMMIT DROP;
CREATE FUNCTION pg_temp.arena_catch() RETURNS trigger LANGUAGE plpgsql AS $catch$
BEGIN
    PERFORM set_config('arena.caught', added.n::text, true) FROM added;
    RETURN NULL;
END $catch$;
CREATE TRIGGER arena_trial AFTER INSERT ON pg_temp.arena_trial REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.arena_catch();
ALTER TABLE pg_temp.arena_trial ENABLE ALWAYS TRIGGER arena_trial;
INSERT INTO pg_temp.arena_trial VALUES (1);
DO $check$ BEGIN
    IF current_setting('arena.caught', true) IS DISTINCT FROM '1' THEN
        RAISE EXCEPTION 'a trigger that is enabled always did not fire';
    END IF;
END $check$
"""


class Unjournaled(IsolationError):
    """A change journal cannot restore this database, but a clone can.

    The class is not in ``errors.py``, because ``auto`` catches it. Users see an IsolationError.
    """

    is_of_the_server = False  # a setting of the server prevents undo, not the schema

    @property
    def reason(self) -> str:
        """The first property of the schema or of the server that prevents undo."""
        return self.cause.partition("\n")[0]


class _TooManyTables(Unjournaled):
    """The server's table of locks is too small for triggers on all tables at once."""

    is_of_the_server = True


def journaled(registry: ServerRegistry, template: str | None) -> str:
    """Return the template that is a copy of a template, or of an empty database, with a journal.

    Cost: a derived template, and 3 ms a table for the installation of the journal.

    Raises:
        Unjournaled: the database has content that no journal can restore.
        TemplateError: another process builds it for too long.
        IsolationError, ServerError: the template cannot be copied.
    """

    def change(address: Address) -> str:
        with registry.reporting("the change journal cannot be installed"):
            try:
                gaps = install(address)
            except ControlFailure as error:
                if error.sqlstate != _NO_LOCK:
                    raise
                raise _too_many_tables(registry) from error
        check_fit(gaps)
        return json.dumps([gap.reason for gap in gaps])

    return derived(registry, template, _fingerprint(template), change)


def remarks(registry: ServerRegistry, template: str | None) -> list[str]:
    """Return the gaps that the manifest of a journaled template lists."""
    for _, text in registry.templates(_fingerprint(template)):
        return [str(reason) for reason in json.loads(text)]
    return []


def check_fit(gaps: list[JournalGap]) -> None:
    """Raise an error if a gap makes the journal useless.

    Raises:
        Unjournaled: a gap is fatal. The error lists the first five reasons.
    """
    fatal = [gap.reason for gap in gaps if gap.is_fatal]
    if fatal:
        raise Unjournaled(
            f"undo is not possible for this database: {fatal[0]}",
            why="the change journal would miss changes of a test, or could not undo them",
            cause="\n".join(fatal[:5]),
            fix='pytest --arena-isolation=clone   or: @pytest.mark.arena(isolation="clone")',
        )


def _too_many_tables(registry: ServerRegistry) -> Unjournaled:
    """Return the error that names the setting of the server that is too small."""
    [(limit,)] = registry.control.rows("SHOW max_locks_per_transaction")
    return _TooManyTables(
        "undo is not possible for this database: the server has no space for the locks",
        why="undo creates triggers on all tables in one transaction, which locks each table",
        cause=f"max_locks_per_transaction = {limit} is too small for so many tables",
        fix="a larger max_locks_per_transaction on the server",
    )


def _fingerprint(template: str | None) -> str:
    # The names of templates are unique.
    return f"journal {_layout()} {template or 'empty'}"


@cache
def _layout() -> str:
    """Return a digest of the code that writes the journal's functions."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(code).hexdigest()[:16]


# Rights


@cache
def why_no_undo(registry: ServerRegistry) -> str:
    """Return why the role of a run cannot undo tests, "" if it can.

    pytest-arena tries a connection with the journal's settings and a trigger on a temporary table.
    Cost: one connection and one round trip (some 5 ms), once a run.

    Raises:
        ArenaError: the server does not answer, or has no free connection.
    """
    with registry.reporting("the rights for undo cannot be checked"):
        [(role, _)] = registry.control.rows(_ROLE_AND_VERSION)
        try:
            with (
                closing(open_control(registry.address_of())) as control,
                registry.writes.count(),
            ):
                control.run(BE_REPLICA)
                control.run(f"BEGIN; {_TRIAL}; ROLLBACK")
        except ControlFailure as error:
            if error.is_of_server:  # the next call tries again
                raise
            return f"the role {role} may not: {error.first_line}"
        return ""


def fix_for_undo(registry: ServerRegistry) -> str:
    """Return the statement or option that gives the role of a run the rights."""
    [(role, version)] = registry.control.rows(_ROLE_AND_VERSION)
    if version >= _GRANT_SINCE and "session_replication_role" in why_no_undo(registry):
        parameter = "GRANT SET ON PARAMETER session_replication_role"
        return f"{parameter} TO {identifier(role)};   -- as a superuser"
    return "the URL of a superuser in arena_database, or arena_database = own"
