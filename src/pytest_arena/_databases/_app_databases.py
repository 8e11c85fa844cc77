"""Which databases does the app have, and which of them does somebody mean?"""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._config._load import nearest
from pytest_arena._gate._engines import asked_by_engine, asked_by_url, described_url
from pytest_arena._gate._gate_notes import another_product, unknown_product
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._origin import user_line
from pytest_arena._product import (
    NOWHERE,
    ROOMS,
    Asked,
    Core,
    Database,
    Key,
    Product,
    room,
)
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config._read import Config
    from pytest_arena._gate._registry import Registry


class Products:
    """The products that the options admit, each opened at its first use."""

    def __init__(self, core: Core, config: Config) -> None:
        self._core, self._config = core, config
        self.opened: dict[str, Product] = {}  # those that are in use
        self._opening = threading.RLock()

    def __contains__(self, name: object) -> bool:
        return name in ROOMS and (name == "sqlite" or self._config.database != "sqlite")

    def __getitem__(self, name: str) -> Product:
        with self._opening:
            if name not in self.opened:
                self.opened[name] = room(name).open_product(self._core, self._config)
            return self.opened[name]


class AllowedFiles:
    """Tells files apart by where they lie, by ``arena_allow``, and by what engines have meant."""

    def __init__(self, config: Config, temporary: Callable[[], Path | None]) -> None:
        below_root = (str(config.root / text) for text in config.allow)
        self.allowed: tuple[str, ...] = (*config.allow, *below_root)
        # Beside what is ours in the cache's folder there may be anything.
        self._folders = [
            config.cache.resolve() / name for name in ("templates", "kept")
        ]
        self.live: tuple[Path, ...] = ()  # the folders of live databases
        # By their real paths, with what could be seen of each when somebody first came to it.
        self.of_app: set[str] = set()  # files that engines mean
        self.names: tuple[str, ...] = ()  # of those, without folders
        self._seen: dict[str, list[tuple[int, int]]] = {}
        self._temporary = (
            temporary  # gives pytest's folder for tests, once there is one
        )

    def add(self, file: str) -> None:
        """An engine of the app's means this file: a database of the arena stands for it."""
        known = self.see(file)
        self.of_app.add(known)
        self.names = tuple({*self.names, Path(known).name, Path(file).name})

    def see(self, file: str) -> str:
        """Somebody has come to this file, which an engine may mean later. Returns its real path."""
        self._seen.setdefault(known := real(file), _signature(file))
        return known

    def missed_by(self, error: BaseException) -> str:
        """Return the app's database file that an error calls missing, or ""."""
        if isinstance(error, FileNotFoundError) and isinstance(
            error.filename, str | bytes
        ):
            name = real(os.fsdecode(error.filename))
            return name if name in self.of_app else ""
        # Starlette's FileResponse raises a RuntimeError. str() of other errors may fail.
        text = str(error) if type(error) is RuntimeError else ""
        if not text.endswith("does not exist."):
            return ""
        return next(
            (file for file in sorted(self.of_app) if Path(file).name in text), ""
        )

    def changed(self) -> list[str]:
        """Return the app's own files that are not what they were: somebody else wrote to them."""
        return [
            one for one in sorted(self.of_app) if _signature(one) != self._seen[one]
        ]

    def is_ours(self, file: str) -> bool:
        """Whether it lies in a folder of the arena's."""
        path = Path(real(file))
        return any(
            path.is_relative_to(folder) for folder in (*self._folders, *self.live)
        )

    def is_free(self, file: str) -> bool:
        """Whether tests may open this file themselves: pytest's folders, ``arena_allow``."""
        temporary = self._temporary()
        if temporary is not None and Path(real(file)).is_relative_to(temporary):
            return not self._is_link_to_app(file)
        names = {file, real(file)}
        return any(
            self.is_allowed(name) or self.is_allowed(f"sqlite:///{name}")
            for name in names
        )

    def is_allowed(self, name: str) -> bool:
        """Whether ``arena_allow`` names this database. A relative file is one below the root.

        Of a database on several hosts, each has to be allowed.
        """
        found = _HOSTS.fullmatch(name)
        names = (
            [f"{found[1]}{host}{found[3]}" for host in found[2].split(",")]
            if found
            else [name]
        )
        return all(
            each in self.allowed
            or any(fnmatch(each, pattern) for pattern in self.allowed)
            for each in names
        )

    def belongs_to_app(self, file: str) -> bool:
        """Whether this is a file of an engine's, so that a database of the arena stands for it.

        Engines that have not connected yet count.
        """
        is_known = real(file) in self.of_app or self._is_link_to_app(file)
        return (is_known or _is_meant_by_an_engine(file)) and not self.is_free(file)

    def stands_for(self, real: str) -> bool:
        """Whether a database of the arena stands in this file's place, known by its real path."""
        return real in self.of_app and not self.is_free(real)

    def _is_link_to_app(self, file: str) -> bool:
        """Whether the file is another name (a hard link) of one that belongs to the app."""
        return any(
            _is_same(known, file) for known in [*self.of_app] if known != real(file)
        )


_HOSTS = re.compile(r"(\w+://)([^/]+)(/.*)")


def real(file: str) -> str:
    """Return a file's path without links, by which it is known."""
    return os.path.realpath(file)


def _is_meant_by_an_engine(file: str) -> bool:
    found = [asked_by_engine(engine) for engine in known_engines.find()]
    names = [one.name for one in found if one and one.product == "sqlite" and one.name]
    return any(real(name) == real(file) or _is_same(name, file) for name in names)


def _is_same(one: str, other: str) -> bool:
    with suppress(OSError):  # one of them is not there
        return Path(one).samefile(other)
    return False


def _signature(file: str) -> list[tuple[int, int]]:
    """What can be seen of a file from outside, and of its WAL, where commits wait at first."""
    found = []
    for path in (file, f"{file}-wal"):
        with suppress(OSError):
            status = Path(path).stat()
            if status.st_size or path == file:  # whoever only reads makes an empty WAL
                found.append((status.st_mtime_ns, status.st_size))
    return found


class KnownDatabases:
    """From what an engine asks for, or a name that somebody says, to a database of the arena.

    The file in an engine's URL tells which database is meant, and on a server the database's name;
    each memory engine has one of its own. An engine keeps the database that it had first, also
    after a change of the working folder.
    """

    def __init__(
        self,
        config: Config,
        products: Products,
        files: AllowedFiles,
        connections: Registry,
    ) -> None:
        self._config, self.products, self.files = config, products, files
        self._connections = connections
        self.by_key: dict[Key, Database] = {}  # connected to or not
        self._registering = threading.RLock()
        self.asked: dict[str, None] = {}  # on servers, as they were asked for
        self.in_memory = 0  # how many there have been
        self._count = itertools.count(1)
        self.primary: Database | None = None
        # Whether the app makes its engines when it starts; what was the first one until its
        # engine ended tells how the next one will be.
        self.is_late = False
        self._former: Database | None = None
        self.tried = ""  # to find the app's engines, where none is known
        self.exported = ""  # the redirected variables, one a line

    def at_file(self, file: str) -> Database | None:
        """Return the database whose live file this is."""
        by_file = {one.file: one for one in [*self.by_key.values()] if one.live}
        found = None if os.path.islink(file) else by_file.get(file)  # noqa: PTH114 - as often as a connect
        return found or by_file.get(real(file))

    def find(self, asked: Asked) -> Database | None:
        """Return the database that is meant, if it is known."""
        known = known_engines.database_of(asked.dialect)
        if known is not None:
            return known
        at_file = (
            self.at_file(asked.name)
            if asked.product == "sqlite" and asked.name
            else None
        )
        key, _ = self.products[asked.product].meant(asked)
        return at_file or (self.by_key.get(key) if key else None)

    def register(self, asked: Asked) -> Database:
        """Return the database that is meant; it has no content before its first connection.

        Raises:
            ConfigError: a test has been given a database of another product in its place.
        """
        with self._registering:
            database = self.find(asked) or self._add(asked)
            if database.product.name != asked.product:
                raise another_product(database, asked.product)
            # An engine of pytest-arena has its database already, and another login.
            if known_engines.database_of(asked.dialect) is None:
                database.is_only_named = False
                database.login = database.login or asked.login
                known_engines.of(asked.dialect).lead_to(database)
            # An app with engines of both kinds is an async one.
            if asked.dialect.is_async:
                database.dialect = type(asked.dialect)
            return database

    def name(self, asked: Asked) -> Database:
        """As ``register``, for a variable's value: no engine has asked for it by now."""
        is_new = self.find(asked) is None
        database = self.register(asked)
        database.is_only_named |= is_new
        return database

    def _add(self, asked: Asked) -> Database:
        product = self.products[asked.product]
        key, tails = product.meant(asked)
        self.in_memory += key is None
        key = key or Key("memory", str(next(self._count)))
        database = self._adopted(key, tails, asked) or self._new(key, tails, asked)
        self.by_key[key] = database
        if asked.product != "sqlite":
            self.asked[asked.name] = None
        elif asked.name:
            self.files.add(asked.name)
        if self.primary is None and self._may_be_first(tails):
            self.primary = database
        return database

    def _may_be_first(self, tails: tuple[str, ...]) -> bool:
        """Of engines that are made at the start, one that the options name, if they name any."""
        names = self.named_by_options()
        return not (self.is_late and names) or any(
            name in ("", *tails) for name in names
        )

    def _new(self, key: Key, tails: tuple[str, ...], asked: Asked) -> Database:
        product = self.products[asked.product]
        name = self._free_name(tails or ("memory",))
        live = self._new_file(product, Path(asked.name).name or "memory.db")
        born, dialect = next(self._count), type(asked.dialect)
        return Database(
            key, name, tails or (name,), product, dialect, live=live, born=born
        )

    def _free_name(self, tails: tuple[str, ...]) -> str:
        """The shortest name that no other database has."""
        taken = {database.name for database in self.by_key.values()}
        free = (name for name in tails[::-1] if name not in taken)
        return next(free, "") or f"{next(self._count)}-{tails[-1]}"

    def _new_file(self, product: Product, name: str) -> Path | None:
        taken = {
            one.live.name.lower()
            for one in self.by_key.values()
            if one.live is not None
        }
        if (live := product.new_file(name, taken)) is not None:
            self.files.live = (live.parent,)
        return live

    def drop(self, database: Database) -> None:
        """Nothing will ask for this database as it is now."""
        del self.by_key[database.key]
        if self.primary is database:
            self.primary, self._former = (
                None,
                database,
            )  # the next engine's takes its place
        for engine in known_engines.on(database):
            engine.lead_to(None)
        self._connections.forget(database.key)
        database.product.remove(database)

    def give_up_first(self, key: Key | None, name: str) -> None:
        """Let the next engine's database be the app's first one, if the first was ``postgres``.

        An engine on ``postgres`` makes a test database, and is no engine of the app's.
        """
        first = self.primary
        if first is None or first.key != key or first.tails != ("postgres",):
            return
        if name not in {
            tail for database in self.by_key.values() for tail in database.tails
        }:
            self.primary = None
            self._former = first

    def add_own(self, engine: Engine, database: Database) -> None:
        """Lead an engine of pytest-arena to a database, whatever its URL says."""
        known = known_engines.of(engine.dialect)
        known.mark_own(engine)
        known.lead_to(database)

    # Before any engine.

    def know_engines(self, asking: Dialect | None = None) -> bool:
        """Look for the app's engines; those that have not connected yet count as well.

        One that asks right now need not be asked itself, where there is no other. Returns whether
        it is known on which product the app is.
        """
        engines = known_engines.find_in_use() if self.primary is None else []
        if any(engine.dialect is not asking for engine in engines):
            self.choose_primary([one for one in map(asked_by_engine, engines) if one])
        return self.primary is not None or self._former is not None

    def choose_primary(self, asked: list[Asked]) -> None:
        """Make known the databases of engines that exist: one in memory comes last."""
        known = [
            one
            for one in asked
            if one.product in self.products and self.is_the_apps(one)
        ]
        for one in sorted(known, key=lambda one: not one.name):
            self.register(one)

    def prefer(self, asked: Asked) -> None:
        """Make this the app's first database, unless tests have begun to use another one."""
        used = self.primary is not None and self.primary.isolation is not None
        is_there = (
            asked.product in self.products and asked.name and self.is_the_apps(asked)
        )
        if is_there and not used:
            self.primary = self.name(asked)

    def is_the_apps(self, asked: Asked) -> bool:
        """Whether a database of the arena's stands, or may stand, in the place of this one."""
        if asked.product != "sqlite":
            return not self.files.is_allowed(asked.name)
        return not asked.name or not self.goes_its_own_way(asked.name)

    def goes_its_own_way(self, file: str) -> bool:
        """Whether a file is none of the app's: arena's own, a test's own, an allowed one."""
        if not file or self.at_file(file) is not None:
            return False
        return self.files.is_ours(file) or self.files.is_free(file)

    def named(self, name: str) -> Database:
        """Return a database by its name, which an engine or an option has given it.

        Without one, the app's first; the next engine's, where none is known yet.

        Raises:
            ConfigError: no engine is known, or all are on products that arena has not; nobody
                knows this name, or several databases have it.
        """
        if not name:
            names = self.named_by_options()
            first = "" if "" in names else next(iter(names), "")
            self.primary = self.primary or self._expected(first)
            return self.primary
        every = list(self.by_key.values())
        found = [database for database in every if name in database.tails]
        if len(found) == 1:
            return found[0]
        if found:
            longer = [
                next(tail for tail in one.tails[::-1] if "/" in tail) for one in found
            ]
            raise ConfigError(
                f"there are {len(found)} databases {name!r}",
                why="which one was meant would depend on which was connected to first",
                cause=f"{', '.join(one.tails[0] for one in found)}\n{user_line() or ''}".strip(),
                fix=f"arena.session(database={longer[0]!r})",
            )
        if name in self.named_by_options():
            return self._expected(name)
        names = sorted({*(one.name for one in every), *self.named_by_options()} - {""})
        raise ConfigError(
            f"there is no database {name!r}",
            why="each database of the app has the name of its file, without its ending, or the one "
            "that it has on its server",
            cause=f"known by now: {', '.join(names) or 'none'}\n{user_line() or ''}".strip(),
            fix=f"arena.session(database={nearest(name, names) if names else 'app'!r})",
        )

    def _expected(self, name: str) -> Database:
        """A database that somebody asks for before any engine: the first engine means it.

        Where the options name their databases, it is the engine on the database of that name.
        """
        key = Key("expected", name)
        if key not in self.by_key:
            shown, (product, dialect) = name or "app", self._product_of_engines()
            live = self._new_file(product, f"{shown}.db")
            self.by_key[key] = Database(
                key, shown, (shown,), product, dialect, live=live
            )
        return self.by_key[key]

    def _product_of_engines(self) -> tuple[Product, type[Dialect]]:
        """Return that of engines that are or were there; else the one that is asked for."""
        known = self.primary or next(iter(self.by_key.values()), self._former)
        if known is not None:
            return known.product, known.dialect
        if self._config.database == "auto":
            engines = dict.fromkeys(
                described_url(one.url) for one in known_engines.find_in_use()
            )
            raise unknown_product(self.tried, ", ".join(engines))
        wanted = "sqlite" if self._config.database == "sqlite" else "postgresql"
        return self.products[wanted], dialects(self.products[wanted])[0]

    def _adopted(
        self, key: Key, tails: tuple[str, ...], asked: Asked
    ) -> Database | None:
        name = next(
            (each for each in (*tails, "") if Key("expected", each) in self.by_key),
            None,
        )
        if name is None:
            return None
        expected = self.by_key[Key("expected", name)]
        if expected.product.name != asked.product:
            raise another_product(expected, asked.product)
        # Before it stands among the others, whose names it must not have.
        del self.by_key[expected.key]
        expected.name = name or (self._free_name(tails) if tails else expected.name)
        self._connections.rename(expected.key, key)  # one may be in use by now
        expected.key, expected.tails = key, tails or expected.tails
        return expected

    def named_by_options(self) -> list[str]:
        """Return the names of databases that options have given values for."""
        return [*self._config.schema, *self._config.seed]


def dialects(product: Product) -> list[type[Dialect]]:
    """Return the dialects of the drivers that are installed; never none."""
    names = [
        f"{product.name}+{driver}" if driver else product.name
        for driver in product.drivers()
    ]
    return [make_url(f"{name}://").get_dialect() for name in names or [product.name]]


def driver_of(database: Database) -> str:
    """Return the name of the app's driver; "" for SQLite's own, which its URLs do not name."""
    return (
        database.dialect.driver
        if database.dialect.is_async or not database.file
        else ""
    )


def led_url(database: Database, driver: str) -> URL:
    """Return the URL of an engine that the gate leads to a database.

    On a server it is of no place: the live database has no name at first, and another one later.
    """
    name = f"{database.product.name}+{driver}" if driver else database.product.name
    host = None if database.file else NOWHERE
    return URL.create(name, host=host, database=database.file or database.name)


# What stood there at first, for this run's workers and child runs, which inherit the new values.
_ORIGINALS = "ARENA_ORIGINAL_URLS"


class Environment:
    """Redirects the variables of ``arena_env``, and gives them back.

    One that nobody has set is set as well, once the app's first database is known: another process
    would fall back to the app's default, which is no test's database.
    """

    def __init__(self, names: tuple[str, ...], known: KnownDatabases) -> None:
        self._known = known
        self._before = {name: os.environ.get(name) for name in (*names, _ORIGINALS)}
        self._names = names
        old = _inherited()
        self._originals = {
            one: old.get(url, url) for one in names if (url := os.environ.get(one))
        }
        self._unset = [name for name in names if not self._originals.get(name)]

    def redirect(self) -> None:
        """Put the new URLs in place. The first one's database is the app's first."""
        self._put(
            {name: self._inside(url) for name, url in self._originals.items() if url}
        )
        for name in [name for name, url in self._originals.items() if not url]:
            del os.environ[name]  # the run that this one is a child of has set it

    def complete(self) -> None:
        """Set what nobody has set, if it is known by now which database the app's engines mean.

        The first name of all means the app's first database; any other one leads nowhere.
        """
        first = self._known.primary
        if not self._unset or first is None or first.key.kind == "expected":
            return
        url = led_url(first, driver_of(first))
        nowhere = url.set(database=f"/{NOWHERE}/nowhere" if first.file else NOWHERE)
        missing = [name for name in self._unset if not os.environ.get(name)]
        self._unset = []
        self._put(
            {name: str(url if name == self._names[0] else nowhere) for name in missing}
        )

    def originals(self) -> dict[str, URL | None]:
        """Return what each of them named before; None where it was not set, or is no URL."""
        return {name: _url(self._originals.get(name) or "") for name in self._names}

    def _put(self, new: dict[str, str]) -> None:
        os.environ.update(new)
        self._known.exported = "\n".join(
            [*self._known.exported.splitlines(), *new.values()]
        )
        pairs = {url: self._originals.get(name, "") for name, url in new.items()}
        os.environ[_ORIGINALS] = json.dumps({**_inherited(), **pairs})

    def written_since(self) -> Asked | None:
        """Return the database that a conftest has named instead, by writing a variable anew."""
        written = (os.environ.get(name, "") for name in self._names)
        placed = self._known.exported.splitlines()
        anew = (_url(text) for text in written if text and text not in placed)
        found = (asked_by_url(url) for url in anew if url is not None)
        return next(filter(None, found), None)

    def _inside(self, text: str) -> str:
        url = _url(text)
        new = self._new_url(url) if url is not None else None
        if new is None or new is url:
            return text
        # An app may take it apart by hand: SQLAlchemy 2.1 would write the colon as %3A.
        return new.render_as_string(hide_password=False).replace(
            "/file%3A", "/file:", 1
        )

    def _new_url(self, url: URL) -> URL:
        asked = asked_by_url(url)
        if url.get_backend_name() != "sqlite":
            return self._on_server(url, asked)
        if asked is None or not asked.name or self._known.files.is_free(asked.name):
            return url  # memory keeps its pool class; a free file is the tests' own business
        file = self._known.name(asked).file
        is_uri = str(url.query.get("uri", "")).lower() in {"true", "1", "yes"}
        return url.set(database=f"file:{quote(file)}" if is_uri else file)

    def _on_server(self, url: URL, asked: Asked | None) -> URL:
        """The same database where nobody is: the gate knows which one is meant.

        What does not ask the gate, a raw driver or another process, fails there.
        """
        name = asked.name if asked else described_url(url)
        if self._known.files.is_allowed(name):
            return url
        if asked is not None and asked.product in self._known.products:
            self._known.name(asked)
        query = url.difference_update_query(_ELSEWHERE | _SECRET).query
        return URL.create(
            url.drivername, url.username, None, NOWHERE, None, url.database, query
        )

    def restore(self) -> None:
        """Give the variables back."""
        for name in self._before:
            os.environ.pop(name, None)
        os.environ.update(
            {name: old for name, old in self._before.items() if old is not None}
        )


def _inherited() -> dict[str, str]:
    """What stood there at first, "" for nothing, by the URLs in its place."""
    return dict(json.loads(os.environ.get(_ORIGINALS, "{}")))


def _url(text: str) -> URL | None:
    with suppress(
        ArgumentError, ValueError
    ):  # the variable means something else to this app
        return make_url(text)
    return None


# Where drivers find a server beside the place of the host in a URL.
_ELSEWHERE = {
    "dsn",
    "host",
    "hostaddr",
    "odbc_connect",
    "port",
    "service",
    "socket",
    "unix_socket",
}
_SECRET = {"passfile", "password", "sslpassword", "user"}
