"""How is a database copied with all that belongs to it, and how does it go?"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._control import Failed, open_control

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry._connection import Line
    from pytest_arena._postgresql.registry._run import Registry
    from pytest_arena._values import Address

__all__ = ["Copying"]

_WITH_STRATEGY, _WITH_METHOD = 150000, 180000
# Where writes are synced, copying files costs a checkpoint, and copying pages their log.
_SMALL_BYTES = 16 * 1024 * 1024


class Copying:
    """Makes databases and removes them, by whichever line is given."""

    def __init__(self, registry: Registry, address: Address) -> None:
        self._registry, self._address = registry, address
        self._settings: dict[str, sql.Settings] = {}
        self._strategies: dict[str, str] = {}

    def make(self, name: str, template: str | None, line: Line) -> None:
        """Copy a template, with the settings and rights that the server does not copy."""
        strategy = self._strategy(template or "template0", line)
        try:
            self._make(sql.create(name, template, strategy=strategy), line)
        except Failed as error:
            if template is not None or error.sqlstate != "22023":
                raise
            # The server's locale has another encoding: an empty database is as all others there.
            self._make(sql.create(name, "template0", strategy=strategy), line)
        if template is not None:
            self._give_settings(name, template, line)

    def _make(self, statement: str, line: Line) -> None:
        try:
            self._write(statement, line)
        except Failed as error:
            if not self._may_copy_by_clone() or error.sqlstate[:2] not in ("58", "0A"):
                raise
            # This file system cannot share blocks after all.
            self._registry.copies_by_clone = False
            line.run(sql.file_copy_method("copy"))
            self._write(statement, line)

    def _may_copy_by_clone(self) -> bool:
        return self._registry.version >= _WITH_METHOD and self._registry.copies_by_clone

    def _write(self, statement: str, line: Line) -> None:
        with self._registry.writes.one():
            try:
                line.run(statement)
            except Failed as error:
                # No name is used twice: it was made when the connection was lost.
                if error.sqlstate != "42P04":
                    raise

    def _strategy(self, source: str, line: Line) -> str:
        if self._registry.version < _WITH_STRATEGY:
            return ""
        if source not in self._strategies:
            [(size, is_synced)] = line.rows(sql.source_facts(source))
            is_small = is_synced and size < _SMALL_BYTES
            self._strategies[source] = "WAL_LOG" if is_small else "FILE_COPY"
        return self._strategies[source]

    def is_set_like(self, name: str, template: str, line: Line) -> bool:
        """Whether a database still has the settings and rights that a copy of a template gets."""
        [row] = line.rows(sql.settings(name))
        return sql.are_alike(sql.Settings(*row), self._settings_of(template, line))

    def _settings_of(self, template: str, line: Line) -> sql.Settings:
        if template not in self._settings:
            [row] = line.rows(sql.settings(template))
            self._settings[template] = sql.Settings(*row)
        return self._settings[template]

    def _give_settings(self, name: str, template: str, line: Line) -> None:
        statements = sql.clone_settings(name, self._settings_of(template, line))
        if statements:
            with self._registry.writes.one():
                line.run(statements)

    def remove(self, name: str, line: Line, *, is_there: bool, is_condemned: bool) -> None:
        """Drop a database, whoever is connected, and strike its row."""
        self._settings.pop(name, None)
        self._strategies.pop(name, None)
        if is_there and is_condemned:
            line.run(sql.unset_template(name))  # maybe it is none
        if is_there:
            try:
                self._drop(name, line)
            except Failed as error:
                if error.sqlstate != "55006":
                    raise
                self._end_prepared(name, line)
                self._drop(name, line)
        self._registry.strike(name, line)

    def _drop(self, name: str, line: Line) -> None:
        with self._registry.writes.one() as write:
            try:
                line.run(sql.drop(name))
            except Failed as error:
                write.counts = False
                if error.sqlstate != "3D000":
                    raise

    def _end_prepared(self, name: str, line: Line) -> None:
        """Prepared transactions have no session that could be ended, and keep the database."""
        line.run(sql.allow_connections(name, allowed=True))
        with closing(open_control(replace(self._address, database=name))) as inside:
            for (gid,) in inside.rows(sql.prepared()):
                with suppress(Failed):
                    inside.run(sql.rollback_prepared(gid))
