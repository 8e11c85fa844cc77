"""The engines of this process, one record for each dialect.

Several engines may share a dialect object: `Engine.execution_options` copies an engine, and
pytest-arena creates engines like the app's.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from functools import wraps
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine

from pytest_arena._process import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_arena._product import Database


class KnownEngine:
    """The engines that share one dialect object. It keeps none of them alive."""

    def __init__(self) -> None:
        self.database: Database | None = None  # the target of its connections
        self.level = 0  # the serial of the level that created the first engine, or 0
        # Whether the app has disposed of an engine, and no engine has connected since.
        self.is_disposed = False
        self.is_hidden = False  # from searches
        self.had_engine = False  # False for a dialect of a driver or a URL
        # Each engine with its age: a number that grows with each new engine.
        self.ages: weakref.WeakKeyDictionary[Engine, int] = weakref.WeakKeyDictionary()
        self._own: weakref.WeakSet[Engine] = weakref.WeakSet()  # pytest-arena's

    def add(self, age: int, engine: Engine, level: int) -> bool:
        """Add an engine that was created in a level. Return whether it is the first."""
        is_first = not self.had_engine
        if is_first:
            self.had_engine = True
            self.level = level
        self.ages[engine] = age
        return is_first

    def redirect_to(self, database: Database | None) -> None:
        """Note the database to which the gate redirects the connections."""
        self.database = database

    def mark_own(self, engine: Engine) -> None:
        """Note that pytest-arena has created an engine."""
        self._own.add(engine)

    @property
    def has_own(self) -> bool:
        """Whether an existing engine is pytest-arena's."""
        return bool(alive(self._own))

    @property
    def is_used_by_app(self) -> bool:
        """Whether an existing engine is the app's and was not disposed of."""
        of_app = [engine for engine in alive(self.ages) if engine not in self._own]
        return bool(of_app) and not self.is_disposed

    def dispose(self) -> None:
        """Note that the app has disposed of an engine."""
        self.is_disposed = True

    def hide(self) -> None:
        """Treat the engines as disposed of, and hide them from searches, until one connects."""
        self.is_disposed = True
        self.is_hidden = True

    def connect(self, ages: Iterable[int]) -> None:
        """Note that an engine connects. Hidden engines appear again, as the youngest."""
        self.is_disposed = False
        if self.is_hidden:
            self.is_hidden = False
            for engine, age in zip(alive(self.ages), ages, strict=False):
                self.ages[engine] = age


class KnownEngines:
    """All engines of the process."""

    def __init__(self) -> None:
        self._by_dialect: weakref.WeakKeyDictionary[Dialect, KnownEngine] = (
            weakref.WeakKeyDictionary()
        )
        self._ages = itertools.count()

    def of(self, dialect: Dialect) -> KnownEngine:
        """Return the record of a dialect object. Create it at the first call."""
        known = self._by_dialect.get(dialect)
        if known is None:
            # `setdefault` is atomic, so two threads get the same record.
            known = self._by_dialect.setdefault(dialect, KnownEngine())
        return known

    def database_of(self, dialect: Dialect) -> Database | None:
        """Return the database to which the gate redirects a dialect object's connections."""
        known = self._by_dialect.get(dialect)
        if known is None:
            return None
        return known.database

    def all(self) -> list[KnownEngine]:
        """Return all records."""
        # Copied in one step, because other threads create engines.
        return [*self._by_dialect.data.values()]  # type: ignore[attr-defined]  # typeshed lacks it

    def on(self, database: Database) -> list[KnownEngine]:
        """Return the records of the engines whose connections the gate redirects to a database."""
        return [known for known in self.all() if known.database is database]

    def find(self) -> list[Engine]:
        """Return the existing engines, the oldest first. Costs some microseconds for each."""
        return _by_age(self.all())

    def find_in_use(self) -> list[Engine]:
        """Return the existing engines without those that were disposed of and not used since."""
        return _by_age(known for known in self.all() if not known.is_disposed)

    def add(self, engine: Engine, level: int) -> bool:
        """Note a new engine. Return whether it is the first with its dialect object."""
        return self.of(engine.dialect).add(next(self._ages), engine, level)

    def note_connect(self, dialect: Dialect) -> None:
        """Note that an engine is about to connect."""
        known = self._by_dialect.get(dialect)
        if known is not None and known.is_disposed:
            known.connect(self._ages)

    def set_databases_aside(self) -> Callable[[], None]:
        """Forget the databases, for a run inside this run. Return a function that restores them."""
        databases = {known: known.database for known in self.all()}

        def restore() -> None:
            for known in self.all():
                known.redirect_to(databases.get(known))

        for known in databases:
            known.redirect_to(None)
        return restore


known_engines = KnownEngines()


def watch_engines(note: Callable[[Engine], None]) -> None:
    """Call ``note`` with each new engine.

    SQLAlchemy has no event for a new engine, so this wraps `Dialect.engine_created`. It cannot wrap
    `Engine.__init__`, because ``create_engine`` reads its signature.
    """
    event.listen(
        Engine,
        "engine_disposed",
        lambda engine: known_engines.of(engine.dialect).dispose(),
    )
    created = vars(Dialect)["engine_created"].__func__

    @wraps(created)
    def engine_created(cls: type[Dialect], engine: Engine) -> None:
        note(engine)
        created(cls, engine)

    Dialect.engine_created = classmethod(engine_created)  # type: ignore[assignment,method-assign]  # SQLAlchemy has no event for it


def _by_age(records: Iterable[KnownEngine]) -> list[Engine]:
    ages: dict[Engine, int] = {}
    for known in records:
        if not known.is_hidden:
            for engine in alive(known.ages):
                ages[engine] = known.ages[engine]
    return sorted(ages, key=ages.__getitem__)


def existing_engines() -> list[Engine]:
    """Return the existing engines from the garbage collector, the oldest first.

    Costs some ten milliseconds.
    """
    # Objects of one generation have the order of their creation. A garbage collection may move an
    # engine to another generation during the search.
    candidates = [*itertools.chain.from_iterable(map(gc.get_objects, (2, 1, 0)))]
    candidates += gc.get_referrers(Engine)
    # `isinstance` would read `__class__` of a lazy proxy, which may raise or load something.
    engines = [one for one in candidates if issubclass(type(one), Engine)]
    return [*dict.fromkeys(engines)]
