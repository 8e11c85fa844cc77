"""Options, pytest's configuration and the environment, read once into one frozen value."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from pytest_arena._load import is_import_path
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["OPTIONS", "SWITCHES", "Config", "Option", "check_choice", "check_names", "load_config"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: ``arena_<name>`` in a file, ``--arena-<name>``, ``ARENA_<NAME>``."""

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    many: bool = False

    @property
    def ini(self) -> str:
        """The name in pytest's configuration."""
        return f"arena_{self.name}"

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return f"--arena-{self.name}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return f"ARENA_{self.name.upper()}"


ISOLATIONS = ("auto", "copy", "undo", "clone", "rollback")
KEEPS = ("never", "failed", "always")
DATABASES = ("auto", "sqlite", "postgresql", "mysql", "mariadb", "own")

OPTIONS = (
    Option(
        "app",
        "",
        "the app under test, package.module:attribute: an ASGI app, or a factory that is called "
        "once a test. Needed by client, client_as, test_client and test_client_as.",
    ),
    Option(
        "database",
        "auto",
        "where test databases are made. auto (default): the dialect of the engine that connects; "
        "sqlite: files, and no other dialect may connect.",
    ),
    Option(
        "schema",
        "",
        "how an empty database gets its tables: package.module:Base, package.module:metadata, "
        "alembic.ini, a *.sql file, or package.module:function, which is given a Connection "
        "(AsyncConnection for an async function). Built once and reused. Default: the app does it.",
    ),
    Option(
        "seed",
        "",
        "rows that every test starts with: package.module:function, which is given a Session "
        "(AsyncSession for an async function); arena commits.",
    ),
    Option(
        "isolation",
        "auto",
        "how a test is undone: auto (default; copy on SQLite), copy, undo, clone, rollback.",
        ISOLATIONS,
    ),
    Option("login", "", "package.module:function(client, role) that logs a client in."),
    Option(
        "lifespan",
        "on",
        "when the app's lifespan runs: on (default; with the client, in each test), session "
        "(once), off.",
        ("on", "session", "off"),
    ),
    Option(
        "keep",
        "never",
        "keep a test's database for a look, and print how to open it: never (default), failed, "
        "always.",
        KEEPS,
    ),
    Option(
        "env",
        "DATABASE_URL",
        "environment variables that hold database URLs; they lead into the arena before any of "
        "your code is imported. Default: DATABASE_URL.",
        many=True,
    ),
    Option(
        "allow",
        "",
        "databases outside the arena that tests may reach all the same: patterns over "
        "dialect://host:port/name or a file path.",
        many=True,
    ),
)
SWITCHES = (("rebuild", "build the templates (schema and seed) anew, though nothing has changed."),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the user asked for. ``schema`` and ``seed`` map a database's name to its value;
    the name ``""`` is the app's first database."""

    app: str = ""
    database: str = "auto"
    schema: Mapping[str, str]
    seed: Mapping[str, str]
    isolation: str = "auto"
    login: str = ""
    lifespan: str = "on"
    keep: str = "never"
    env: tuple[str, ...] = ("DATABASE_URL",)
    allow: tuple[str, ...] = ()
    rebuild: bool = False
    root: Path
    cache: Path


def load_config(
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Callable[[str], object],
    root: Path,
) -> Config:
    """Read every option: the command line wins over the environment, that over the file.

    Raises:
        ConfigError: a value that cannot be right; it names where the value stands.
    """
    values = {option.name: _read(option, flags, environ, ini) for option in OPTIONS}
    _check_database(values["database"])
    return Config(
        **{name: text for name, text in values.items() if name not in _SPECIAL},
        schema=_by_database(values["schema"], check=_check_schema),
        seed=_by_database(values["seed"], check=_check_seed),
        env=_listed(values["env"]),
        allow=_listed(values["allow"]),
        rebuild=bool(flags.get("rebuild")) or _truthy(environ.get("ARENA_REBUILD", "")),
        root=root,
        cache=Path(environ.get("ARENA_CACHE") or platformdirs.user_cache_path("pytest-arena")),
    )


_SPECIAL = {"schema", "seed", "env", "allow"}


def _truthy(text: str) -> bool:
    return text.lower() not in {"", "0", "no", "off", "false"}


def _read(
    option: Option,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Callable[[str], object],
) -> str:
    sources = (
        (option.flag, flags.get(option.name)),
        (option.variable, environ.get(option.variable)),
        (option.ini, ini(option.ini)),
    )
    for source, value in sources:
        if value:
            text = "\n".join(value) if isinstance(value, list) else str(value).strip()
            return _checked(option, text, source)
    return option.default


def _checked(option: Option, text: str, source: str) -> str:
    if option.choices:
        check_choice(text, option.choices, source=source)
    return text


def check_choice(text: str, choices: Iterable[str], *, source: str) -> None:
    """Raise a ConfigError that names the nearest choice, unless ``text`` is one of them."""
    choices = tuple(choices)
    if text not in choices:
        raise ConfigError(
            f"{source} = {text!r} is none of: {', '.join(choices)}",
            why="the run would not do what was asked for",
            cause="a misspelt value in the configuration, the command line, the environment "
            "or a marker",
            fix=f"{source} = {_nearest(text, choices)}",
        )


def _nearest(text: str, choices: tuple[str, ...]) -> str:
    return (difflib.get_close_matches(text, choices, n=1, cutoff=0.3) or choices)[0]


def check_names(names: Iterable[str], *, source: str) -> None:
    """Raise a ConfigError for the first name that starts with ``arena_`` and is no option."""
    known = tuple(option.ini for option in OPTIONS)
    for name in names:
        if name.startswith("arena_") and name not in known:
            raise ConfigError(
                f"{name} in {source} is no option of pytest-arena",
                why="it would silently do nothing",
                cause=f"a misspelt name in {source}",
                fix=f"{_nearest(name, known)} = …   (pytest --help lists all)",
            )


def _check_database(text: str) -> None:
    if "://" not in text:
        check_choice(text, DATABASES, source="arena_database")
    if text not in {"auto", "sqlite"}:
        raise ConfigError(
            f"arena_database = {text}: this version makes test databases on SQLite only",
            why="a test on another product than the one asked for would prove nothing",
            cause="the pytest configuration, the command line or ARENA_DATABASE",
            fix="arena_database = auto",
        )


_NAMED = re.compile(r"^\s*([\w.-]+)\s*=\s*(.+?)\s*$")


def _by_database(text: str, *, check: Callable[[str], None]) -> Mapping[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [match.groups() if (match := _NAMED.match(line)) else ("", line) for line in lines]
    for _, value in pairs:
        check(value)
    if len({name for name, _ in pairs}) < len(pairs):
        raise ConfigError(
            f"several values for one database: {', '.join(value for _, value in pairs)}",
            why="a database has one schema and one seed",
            cause="arena_schema or arena_seed in the configuration",
            fix="one value, or a line `name = value` for each database",
        )
    return dict(pairs)


def _check_schema(value: str) -> None:
    if not is_import_path(value) and not value.endswith((".ini", ".sql")):
        raise ConfigError(
            f"arena_schema = {value!r} is none of the forms that it can have",
            why="an empty database needs to know where its tables come from",
            cause="the pytest configuration, the command line or ARENA_SCHEMA",
            fix="one of: app.models:Base, app.models:metadata, alembic.ini, schema.sql, "
            "app.db:create_tables",
        )


def _check_seed(value: str) -> None:
    if not is_import_path(value):
        raise ConfigError(
            f"arena_seed = {value!r} is not of the form package.module:function",
            why="the function adds the rows that every test starts with",
            cause="the pytest configuration, the command line or ARENA_SEED",
            fix="arena_seed = tests.seed:seed",
        )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,\n]\s*", text) if part.strip())
