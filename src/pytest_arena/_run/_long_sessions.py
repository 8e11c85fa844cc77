"""Restores the instances of sessions that outlive a test."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import inspect
from sqlalchemy.orm import make_transient, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from pytest_arena._databases._sessions import FreshSession
from pytest_arena._gate._orm_sessions import (
    is_used_by_wide_fixture,
    sessions_in_use,
)
from pytest_arena._run.leaks._leaks import is_used_by_a_thread, loaded_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import InstanceState, Session

    from pytest_arena._run.leaks._leaks import HeldBeforeLevel

    HeldValues = Mapping[InstanceState[object], dict[str, object] | None]


class LongSessions:
    """Sessions that outlive a test, and the instances of earlier tests that they still hold."""

    def __init__(self) -> None:
        # Instances that the suite's sessions still hold, with the test that loaded them.
        self._tests_of_instances: WeakKeyDictionary[InstanceState[object], str] = (
            WeakKeyDictionary()
        )

    def restore(self, before: HeldBeforeLevel, test: str) -> None:
        """Restore the instances that sessions held before the ending level.

        pytest-arena's sessions forget the other instances. The suite's sessions expire them, and
        pytest-arena notes them for the report of a later error.
        """
        for session in sessions_in_use():
            if session.hash_key not in before.sessions:
                continue
            if is_used_by_wide_fixture(session) or is_used_by_a_thread(session):
                continue  # they still use the loaded values
            held: HeldValues = before.instances.get(session.hash_key) or {}
            with suppress(Exception):  # a task may use the session now
                if isinstance(session, FreshSession):
                    _reset_session(session, held)
                else:
                    self._restore_suites_session(session, held, test)

    def _restore_suites_session(
        self, session: Session, before: HeldValues, test: str
    ) -> None:
        for instance in session.identity_map.values():
            state = inspect(instance)
            if state not in before:
                self._tests_of_instances.setdefault(state, test)
                session.expire(instance)
        for state, values in before.items():
            instance = state.obj()
            if instance is None or values is None:
                continue
            was_deleted = state.was_deleted
            loaded_since = _put_back(state, instance, values)
            if was_deleted:
                session.add(instance)
            if loaded_since:
                session.expire(instance, loaded_since)

    def explain(self, error: BaseException) -> str:
        """Explain an error that an instance of an earlier test has caused, "" for another error."""
        kind = type(error).__name__
        if kind not in {"StaleDataError", "ObjectDeletedError"}:
            return ""
        left = [state for state in self._tests_of_instances if state.persistent]
        if kind == "StaleDataError":
            left = [state for state in left if f"'{table_of(state)}'" in str(error)]
        if not left:
            return ""
        state = left[0]
        return _LEFT.format(
            state.class_.__name__, shown_row(state), self._tests_of_instances[state]
        )


_LEFT = """\
`{0}` ({1}) is in a session that outlives a test. {2} loaded or wrote it, and
pytest-arena has undone the writes of that test
next: `with arena.session() as session:` in place of the suite's own session, or
`session.expunge_all()` at the end of each test"""


def table_of(state: InstanceState[object]) -> str:
    """Return the name of the table that an instance is mapped to."""
    return str(getattr(state.mapper.local_table, "name", ""))


def shown_row(state: InstanceState[object]) -> str:
    """Return the row of an instance as a message shows it: ``tickets id=1``."""
    columns = [column.name for column in state.mapper.primary_key]
    key = zip(columns, state.identity or (), strict=False)
    return " ".join([table_of(state), *(f"{name}={value}" for name, value in key)])


def _reset_session(session: FreshSession, before: HeldValues) -> None:
    """Restore the instances and values that a session held before a level. Runs no SQL."""
    # Pending instances of a wider fixture. The end of the test has expunged those of the test.
    pending = [*session.new]
    # `expunge` and `add` of a single instance would also move its related instances.
    session.expunge_all()
    loaded_since: list[tuple[object, list[str]]] = []
    for state, values in before.items():
        instance = state.obj()
        if instance is not None and values is not None:
            loaded_since.append((instance, _put_back(state, instance, values)))
    for instance, names in loaded_since:
        session.add(instance)
        if names:
            session.expire(instance, names)
    session.add_all(pending)


def _put_back(
    state: InstanceState[object], instance: object, values: dict[str, object]
) -> list[str]:
    """Restore the values of an instance. Return the names of attributes loaded since."""
    if state.was_deleted:
        make_transient(instance)
        make_transient_to_detached(instance)
        for key, value in values.items():
            set_committed_value(instance, key, value)
    now = loaded_values(state)
    for key, value in values.items():
        if key not in now or not _is_same(value, now[key]):
            set_committed_value(instance, key, value)
    loaded_since = [key for key in now if key not in values]
    for relationship in state.mapper.relationships:
        if relationship.key in loaded_since:  # `add` would add the related instances
            empty: list[object] | None = [] if relationship.uselist else None
            set_committed_value(instance, relationship.key, empty)
    return loaded_since


def _is_same(before: object, now: object) -> bool:
    if before is now:
        return True
    try:
        return bool(before == now)
    except Exception:  # noqa: BLE001 - arrays and types of the user may not return a bool
        return False
