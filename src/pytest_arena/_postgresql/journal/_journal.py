"""The connection to the change journal of one database, and the functions that it calls."""

from __future__ import annotations

from json import loads
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql._control import Control, literal, open_control

if TYPE_CHECKING:
    from pytest_arena._values import Address

_SETTINGS = {
    "arena.undo": "1",
    # Foreign keys and the app's triggers have no effect while rows are restored.
    "session_replication_role": "replica",
    "row_security": "off",
    # The settings of images.
    "datestyle": "ISO,YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "timezone": "UTC",
    "lc_monetary": "C",
    # PostgreSQL plans each statement once, for few rows, so that it reads no whole table.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # Shorter than deadlock_timeout, so that pytest-arena fails and not the app.
    "lock_timeout": "500ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "synchronous_commit": "off",
}
_ANSWER = "AS SELECT row_to_json(a)::text FROM"
_PREPARED = (
    f"PREPARE enter(pg_snapshot, int8[]) {_ANSWER} pg_arena.enter($1, $2) a",
    f"PREPARE leave(pg_snapshot, int8[], int8[]) {_ANSWER} pg_arena.leave($1, $2, $3) a",
    f"PREPARE look(pg_snapshot, int8[]) {_ANSWER} pg_arena.look($1, $2) a",
)


class State(NamedTuple):
    """The content at one time: a snapshot of transactions, and the state of all sequences.

    ``taken`` has the last number that was taken of each sequence. ``numbers`` has all values, also
    of sequences of which no number was taken.
    """

    snapshot: str
    taken: str = "{}"
    numbers: str = "{}"


def open_journal(address: Address) -> Control:
    """Connect to a database with a journal.

    Raises:
        ControlFailure: the server does not answer, or refuses the login or its settings.
    """
    control = open_control(address, _SETTINGS)
    try:
        control.run("; ".join(_PREPARED))
    except BaseException:
        control.close()
        raise
    return control


def ask_journal(control: Control, name: str, *arguments: str) -> dict[str, Any]:
    """Call a prepared function of the journal. Return its result by the names of its columns."""
    values = ", ".join(map(literal, arguments))
    answer: dict[str, Any] = loads(control.ask(f"EXECUTE {name}({values})") or "{}")
    return answer
