"""Templates whose copies have a change journal; and whether a server lets us keep one.

Such a template is another one's copy, with the journal in it.
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
_WHOSE = "SELECT current_user::text, current_setting('server_version_num')::int / 10000"
# Whether a trigger catches what a replica writes, on a table that nobody else sees.
_TRIAL = """
CREATE TEMP TABLE arena_trial (n int) ON COMMIT DROP;
CREATE FUNCTION pg_temp.arena_catch() RETURNS trigger LANGUAGE plpgsql AS $catch$
BEGIN
    PERFORM set_config('arena.caught', came.n::text, true) FROM came;
    RETURN NULL;
END $catch$;
CREATE TRIGGER arena_trial AFTER INSERT ON pg_temp.arena_trial REFERENCING NEW TABLE AS came
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
    """A change journal cannot bring this database back; a clone can.

    Outside of ``errors.py``, since ``auto`` catches it: users see it as what it is made from.
    """

    is_of_the_server = (
        False  # whether a setting of the server prevents undo, and not the schema
    )

    @property
    def reason(self) -> str:
        """The first thing in the schema or in the server that prevents undo."""
        return self.cause.partition("\n")[0]


class _TooManyTables(Unjournaled):
    """The server's table of locks is too small for triggers on all tables at once."""

    is_of_the_server = True


def journaled(own: ServerRegistry, template: str | None) -> str:
    """Return the template that is a copy of another one, or of none, with the journal in it.

    Cost: as of any template that is derived, and the journal's installation, 3 ms a table.

    Raises:
        Unjournaled: the database has something that no journal brings back.
        TemplateError: another process has been building it all the time.
        IsolationError, ServerError: no copy can be made.
    """

    def change(address: Address) -> str:
        with own.saying("the change journal cannot be installed"):
            try:
                gaps = install(address)
            except ControlFailure as error:
                if error.sqlstate != _NO_LOCK:
                    raise
                raise _too_many_tables(own) from error
        check_fit(gaps)
        return json.dumps([gap.reason for gap in gaps])

    return derived(own, template, _fingerprint(template), change)


def remarks(own: ServerRegistry, template: str | None) -> list[str]:
    """Return what the journal of such a template does not see, or is slow to bring back."""
    texts = [text for _, text in own.templates(_fingerprint(template))]
    return [str(one) for one in json.loads(texts[0])] if texts else []


def check_fit(found: list[JournalGap]) -> None:
    """Raise where something was found that makes a journal useless.

    Raises:
        Unjournaled: with each reason.
    """
    fatal = [one.reason for one in found if one.is_fatal]
    if fatal:
        raise Unjournaled(
            f"undo cannot be had for this database: {fatal[0]}",
            why="what a test changed there would be missing in the change journal, or could not be "
            "brought back by it",
            cause="\n".join(fatal[:5]),
            fix='ARENA_ISOLATION=clone pytest …   or: @pytest.mark.arena(isolation="clone")',
        )


def _too_many_tables(own: ServerRegistry) -> Unjournaled:
    """Return the error that says which setting of the server is too small."""
    [(limit,)] = own.control.rows("SHOW max_locks_per_transaction")
    return _TooManyTables(
        "undo cannot be had for this database: the server has no room for the locks",
        why="undo makes triggers on all tables in one transaction, which locks each table",
        cause=f"max_locks_per_transaction = {limit} is too small for so many tables",
        fix="a larger max_locks_per_transaction on the server",
    )


def _fingerprint(template: str | None) -> str:
    # A template's name is never given twice; an empty database is the same for all.
    return f"journal {_layout()} {template or 'empty'}"


@cache
def _layout() -> str:
    """The code that writes the journal's functions: those of other code are not to be called."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[
        :16
    ]


# Rights


@cache
def lacking(own: ServerRegistry) -> str:
    """Return what keeps the role of a run from undoing tests; "" where nothing does.

    It is tried out: a connection as the journal's, with a trigger on a table that nobody sees.
    Cost: one connection and one round trip (some 5 ms), once a run.

    Raises:
        ArenaError: it cannot be tried: the server is gone, or full of connections.
    """
    with own.saying("whether tests can be undone cannot be tried"):
        [(role, _)] = own.control.rows(_WHOSE)
        try:
            with closing(open_control(own.address_of())) as control, own.writes.one():
                control.run(BE_REPLICA)
                control.run(f"BEGIN; {_TRIAL}; ROLLBACK")
        except ControlFailure as error:
            if error.is_elsewhere:  # of which nothing follows for the rest of the run
                raise
            return f"the role {role} may not: {error.first_line}"
        return ""


def what_would_do(own: ServerRegistry) -> str:
    """Return what gives the role of a run the rights, to be pasted."""
    [(role, version)] = own.control.rows(_WHOSE)
    if version >= _GRANT_SINCE and "session_replication_role" in lacking(own):
        parameter = "GRANT SET ON PARAMETER session_replication_role"
        return f"{parameter} TO {identifier(role)};   -- as a superuser"
    return "the URL of a server where arena may be a superuser, or arena_database = own"
