"""Under which database, isolation, engine and runner are the promises kept?"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CAPABILITIES", "Setting", "every_pair"]

# What a setting may declare not to keep: the name, and what the stories then leave out.
CAPABILITIES: Mapping[str, str] = {
    "several connections": "P3: two transactions open at once, and races between them",
    "moving time": "P3: now() of a second transaction is later than that of the first",
    "ddl": "P2: a test that changes the schema",
    "waiting in loops": "P5: two event loops wait for one pool at the same time",
    "writing by changes": "P10: undoing one changed row writes less than the whole database",
    "reading by changes": "P10: undoing one changed row reads less than the whole database",
}

_ASYNC_ENGINES = ("aiosqlite", "asyncpg", "psycopg_async", "aiomysql", "asyncmy")
# What each database's stories run with; the first isolation and engine are the usual ones.
_ENGINES = {
    "sqlite": ("aiosqlite", "pysqlite"),
    "postgresql": ("asyncpg", "psycopg_async", "psycopg", "psycopg2"),
    "mysql": ("asyncmy", "aiomysql", "pymysql", "mysqldb"),
}
_ISOLATIONS = {"sqlite": "copy", "postgresql": "undo", "mysql": "undo"}
_RIGHTS = ("all", "few")
_RUNNERS = ("asyncio", "asyncio-auto", "anyio", "anyio-uvloop", "plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One combination that the promises are run under. It is a value: `replace` makes variants.

    - ``database``, ``isolation``: as in the options of the plugin; ``copy`` for SQLite and
      ``undo`` for PostgreSQL and MySQL where nothing else is said;
    - ``rights``: those of the runs' login on a server: ``all`` (a superuser's), or ``few``, no more
      than the isolation needs; ``all`` for ``undo``, else ``few``, where nothing else is said;
    - ``engine``: the driver of the app's own engine; ``aiosqlite`` or ``pysqlite`` on SQLite, on
      PostgreSQL ``asyncpg``, ``psycopg_async``, ``psycopg`` or ``psycopg2``;
    - ``runner``: ``asyncio`` (pytest-asyncio, strict), ``asyncio-auto``, ``anyio``,
      ``anyio-uvloop`` or ``plain`` (sync tests; needs a sync engine);
    - ``loop``: how long an event loop of pytest-asyncio lives, ``function`` or ``session``;
    - ``journal``: SQLite's journal mode, as the app's own listener sets it;
    - ``pool``: ``""`` for SQLAlchemy's own choice, ``one`` (a single connection, others wait),
      ``NullPool``; ``pre_ping``: whether the app's engine sets ``pool_pre_ping``;
    - ``env``: more of the environment; ``plugins``: more modules for ``pytest -p``;
    - ``lacks``: promises that are *not* made, by their names in `CAPABILITIES`, and the reasons.
      They are told as such, and never left out silently. What the database product itself
      cannot keep is added to them: ``reading by changes`` for SQLite, that and
      ``writing by changes`` for ``clone``.

    Example::

        Setting(engine="pysqlite", runner="plain", journal="wal")
        Setting(database="postgresql", engine="psycopg_async", runner="anyio")
        Setting(isolation="mine", lacks={"several connections": "all share one"})

    Raises:
        ValueError: a value, or a combination, that there are no stories for.
    """

    database: str = "sqlite"
    isolation: str = ""
    rights: str = ""
    engine: str = ""
    runner: str = "asyncio"
    loop: str = "function"
    journal: str = "delete"
    pool: str = ""
    pre_ping: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        engines = _ENGINES.get(self.database, ())
        usual = {
            "isolation": _ISOLATIONS.get(self.database, ""),
            "engine": engines[0] if engines else "",
        }
        for name, value in usual.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        rights = "all" if self.isolation == "undo" else "few"
        object.__setattr__(self, "rights", self.rights or rights)
        if engines:
            _check("engine", self.engine, engines)
        for name in self.lacks:
            _check("lacks", name, CAPABILITIES)
        _check("rights", self.rights, _RIGHTS)
        _check("runner", self.runner, _RUNNERS)
        _check("loop", self.loop, ("function", "session"))
        _check("pool", self.pool, ("", "one", "NullPool"))
        if self.runner == "plain" and self.is_async:
            raise ValueError(f"sync tests cannot await the engine {self.engine!r}")

    @property
    def is_async(self) -> bool:
        """Whether the app's engine is an async one."""
        return self.engine in _ASYNC_ENGINES

    @property
    def awaits(self) -> bool:
        """Whether the tests are coroutines."""
        return self.runner != "plain"

    @property
    def is_mixed(self) -> bool:
        """Whether coroutines test an app that is sync."""
        return self.awaits and not self.is_async

    def __str__(self) -> str:
        """Say what is special: how the combination is shown as the name of a test."""
        parts = [self.isolation, self.engine, self.runner]
        parts += [f"{self.loop} loop"] * (self.loop != "function")
        parts += [self.journal] * (self.database == "sqlite")
        parts += [f"pool {self.pool}"] * bool(self.pool) + ["pre_ping"] * self.pre_ping
        return ", ".join([*parts, *(f"{name}={value}" for name, value in self.env.items())])


def _check(name: str, value: str, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}, and may be: {', '.join(map(repr, known))}")


def every_pair(settings: Sequence[Setting]) -> list[Setting]:
    """Return few of these settings, in which each two values that go together are met together.

    Most faults of settings need no third value. The one with the most pairs that none before has
    had comes next.
    """
    left = set().union(*map(_pairs, settings))
    chosen: list[Setting] = []
    while left:
        chosen.append(max(settings, key=lambda setting: len(left & _pairs(setting))))
        left -= _pairs(chosen[-1])
    return chosen


def _pairs(setting: Setting) -> set[tuple[tuple[str, str], ...]]:
    values = [(field.name, repr(getattr(setting, field.name))) for field in fields(setting)]
    return set(combinations(values, 2))
