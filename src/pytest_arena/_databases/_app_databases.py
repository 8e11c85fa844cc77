"""The app's databases, its files, and the variables with its URLs."""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._config._load import nearest
from pytest_arena._config._supported import (
    FILE_FORMAT,
    FILE_PRODUCTS,
    FILES,
    REDIS,
    SHOWN,
    SUPPORTED,
    allows,
    product_of,
    reached,
    redis_name,
)
from pytest_arena._databases._client_programs import client_by_path, file_in, words_of
from pytest_arena._gate._engines import (
    known_engines,
    requested_by_engines,
    requested_by_url,
    requested_without_engine,
)
from pytest_arena._origin import as_own, shown_line
from pytest_arena._product import (
    NOWHERE,
    Core,
    Database,
    Key,
    Product,
    RequestedDatabase,
    open_product,
)
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._values import Child


@dataclass(frozen=True)
class Products:
    """The products that the options allow. The first use opens a product."""

    core: Core
    config: Config
    opened: dict[str, Product] = field(default_factory=dict)
    opening: threading.RLock = field(default_factory=threading.RLock)

    def __contains__(self, name: object) -> bool:
        return name in SUPPORTED and (
            name in FILE_PRODUCTS or self.config.database not in FILE_PRODUCTS
        )

    def __getitem__(self, name: str) -> Product:
        with self.opening:
            if name not in self.opened:
                self.opened[name] = open_product(name, self.core, self.config)
            return self.opened[name]

    def ports(self) -> set[int]:
        """Return the ports of the tests' servers."""
        servers = [getattr(product, "server", None) for product in self.opened.values()]
        return {server.address.port for server in servers if server is not None}


class Whose(Enum):
    """To whom a database belongs, which decides whether a connection may open it."""

    OURS = "pytest-arena's"
    FREE = "nobody's: tests may open it"  # in pytest's folder, or by `arena_allow`
    APP = "the app's: an engine names it, which need not have connected"
    UNKNOWN = "unknown: it may be a real one"

    @property
    def is_at_stake(self) -> bool:
        """Whether a connection could change a database of the user."""
        return self in {Whose.APP, Whose.UNKNOWN}


class AllowedFiles:
    """Knows the files of the app and of pytest-arena, and what tests may open."""

    def __init__(self, config: Config) -> None:
        below_root = [str(config.root / pattern) for pattern in config.allow]
        self.allowed: tuple[str, ...] = (*config.allow, *below_root)
        # Only these folders of the cache: it may hold files of other programs, too.
        cache = config.cache.resolve()
        self.folders = {cache / "templates", cache / "kept"}
        self.live: set[str] = set()  # the live files
        # The real paths of files that engines name, with their states then, None without a file.
        self.of_app: dict[str, os.stat_result | None] = {}
        self.on_servers: set[str] = set()  # the names of databases that engines and variables name
        # The databases without an engine that this run removed. A controller of pytest-xdist sends
        # them to its workers: it imports a conftest earlier.
        self.removed: set[str] = set()
        self.began = time.time()
        # The folder in which pytest creates `tmp_path`.
        self.temporary: Path | None = None

    def add(self, file: str) -> None:
        """Note that an engine of the app names this file. pytest-arena replaces its database."""
        path = os.path.realpath(file)
        if path not in self.of_app and not self._is_beside(path):
            self.of_app[path] = None
            with suppress(OSError):
                self.of_app[path] = Path(path).stat()

    def changed(self) -> list[str]:
        """Return the app's files that have changed since the run began."""
        files = sorted(self.of_app.items())
        return [file for file, before in files if self._has_changed(file, before)]

    def _has_changed(self, file: str, before: os.stat_result | None) -> bool:
        if before is not None:
            if not before.st_size:  # a fixture may have created it by `tempfile.mkstemp()`
                return False
            if before.st_ctime <= self.began and not os.access(file, os.F_OK):
                return True
        for path in (file, f"{file}{FILE_FORMAT.logs[0]}"):
            with suppress(OSError):
                status = Path(path).stat()
                # An empty log does not count, because a reader creates one.
                if status.st_ctime > self.began and (path == file or status.st_size):
                    return True
        return file in self.removed

    def whose(self, name: str) -> Whose:
        """Return to whom a file belongs, or a database on a server in the form of ``arena_allow``.

        A relative path in ``arena_allow`` starts at the root. The app has named a file beside the
        live files by a part of a variable's URL, such as the file of a tenant.
        """
        if not name:  # in memory
            return Whose.FREE
        is_file = "://" not in name
        if is_file:
            path = os.path.realpath(name)
            if path not in self.live and self._is_beside(path):
                return Whose.APP
            if not self.folders.isdisjoint(Path(path).parents):
                return Whose.OURS
            if self.temporary and Path(path).is_relative_to(self.temporary):
                return Whose.FREE
        if allows(self.allowed, name):
            return Whose.FREE
        is_of_app = reached(name, self._named()) if is_file else self.same_on_servers(name)
        return Whose.APP if is_of_app else Whose.UNKNOWN

    def same_on_servers(self, url: str) -> list[str]:
        """Return the app's databases with the product and the name in a URL, on any host."""
        product = product_of(url)
        _, _, database = url.rpartition("/")
        engines = requested_by_engines(known_engines.find())
        names = sorted({*self.on_servers, *(each.name for each in engines)})
        same = [name for name in names if product_of(name) == product]
        return [name for name in same if product and name.endswith(f"/{database}")]

    def _named(self) -> set[str]:
        """Return the real paths of the files that engines and variables name."""
        engines = requested_by_engines(known_engines.find())
        files = [each.name for each in engines if each.product in FILE_PRODUCTS and each.name]
        return {*self.of_app, *map(os.path.realpath, files)}

    def of_engines(self) -> list[str]:
        """Return the files that engines and variables name, and that are the app's."""
        return [file for file in self._named() if self.whose(file) is Whose.APP]

    def _is_beside(self, path: str) -> bool:
        """Return whether a file is in the folder of the live files."""
        return not {Path(file).parent for file in self.live}.isdisjoint(Path(path).parents)


@dataclass(slots=True, eq=False)
class KnownDatabases:
    """The databases of the app that pytest-arena replaces.

    The app's first database is that of ``arena_env``, else of the oldest engine (engines in memory
    last, disposed ones never), else one on the product that an option names, which the app's first
    engine will use. An engine requests the file in its URL, or the database of that name on a
    server, in memory its own. It keeps its first database, also after a change of the folder.
    """

    products: Products
    files: AllowedFiles
    # With or without a connection. The first database may have a second key, of its engine.
    by_key: dict[Key, Database] = field(default_factory=dict)
    tails: set[str] = field(default_factory=set)  # the names in options, also of dropped databases
    primary: Database | None = None
    without_engine: Database | None = None  # the first database before it has an engine
    exported: set[str] = field(default_factory=set)  # the values of redirected variables
    registering: threading.RLock = field(default_factory=threading.RLock)
    count: itertools.count[int] = field(default_factory=partial(itertools.count, 1))

    def at_file(self, file: str) -> Database | None:
        """Return the database with this live file, None for another file."""
        by_file = {database.file: database for database in [*self.by_key.values()]}
        return by_file.get(file) or by_file.get(os.path.realpath(file))

    def find(self, requested: RequestedDatabase) -> Database | None:
        """Return the requested database, if it is known."""
        known = known_engines.of(requested.dialect).database
        if known is not None or requested.product not in self.products:
            return known
        if requested.product in FILE_PRODUCTS and requested.name:
            at_file = self.at_file(requested.name)
            if at_file is not None:
                return at_file
        key, _ = self.products[requested.product].identify(requested)
        return None if key is None else self.by_key.get(key)

    def register(self, requested: RequestedDatabase) -> Database:
        """Return the requested database, which is empty before its first connection."""
        with self.registering:
            database = self.find(requested) or self._add(requested)
            # Skip an engine of pytest-arena: it has a database, and may have another login.
            known = known_engines.of(requested.dialect)
            if known.database is None:
                database.login = database.login or requested.login
                known.database = database
                dialect = type(requested.dialect)
                is_late_sync = known.birth == "late" and not dialect.is_async
                database.use_dialect(dialect, is_of_engine=known.had_engine and not is_late_sync)
            return database

    def prefer(self, requested: RequestedDatabase) -> Database:
        """Register a database that a variable names, as the first one if tests use no other."""
        database = self.register(requested)
        if self.primary is None or self.primary.isolation is None:
            self.primary = database
        return database

    def add_first(self, product: str) -> None:
        """Add the first database for an app that has no engine yet."""
        requested = requested_without_engine(product)
        if requested is not None and self.primary is None:
            self.without_engine = self._add(requested)

    def _add(self, requested: RequestedDatabase) -> Database:
        product = self.products[requested.product]
        key, tails = product.identify(requested)
        tails = tails or ("memory",)
        tails = (f"{requested.product}/{tails[-1]}", *tails)
        self.tails.update(tails)
        first = self.without_engine
        used = {each.name for each in self.by_key.values() if each is not first}
        free = [name for name in reversed(tails) if name not in used]
        name = free[0] if free else f"{next(self.count)}-{tails[-1]}"
        if requested.product not in FILE_PRODUCTS:
            self.files.on_servers.add(requested.name)
        elif requested.name:
            self.files.add(requested.name)
        if first is not None and key is not None and first.product is product:
            self.without_engine = None
            self.by_key[key] = first
            first.name = name
            first.tails = tails
            return first
        if key is None:
            key = Key("memory", str(next(self.count)))
        live = product.new_file(
            Path(requested.name).name or "memory.db",
            {Path(each.file).name.lower() for each in self.by_key.values()},
        )
        if live is not None:
            self.files.folders.add(live.parents[2])
            self.files.live.add(str(live))
        dialect = type(requested.dialect)
        database = Database(
            key, name, tails, product, dialect, file=str(live or ""), incarnation=next(self.count)
        )
        self.by_key[key] = database
        if self.primary is None:
            self.primary = database
        return database

    def drop(self, database: Database) -> None:
        """Drop a database that the app no longer uses. Its engines get another one later."""
        del self.by_key[database.key]
        if self.primary is database:
            # The database of the next engine becomes the primary one.
            self.primary = None
        for engine in known_engines.on(database):
            engine.database = None
        for _, own in database.engines.values():
            own.pool.dispose()
        database.close()

    # The app's first database.

    def find_first(self) -> bool:
        """Register the databases of the app's engines, if no first database is known.

        Return whether the first database is known.
        """
        if self.primary is None:
            self.register_engines()
        return self.primary is not None

    def register_engines(self) -> None:
        """Register the databases of existing engines, and memory databases last."""
        engines = known_engines.find()
        in_use = [each for each in engines if not known_engines.of(each.dialect).is_disposed]
        requested = requested_by_engines(in_use)
        for database in sorted(requested, key=lambda database: not database.name):
            if self.replaces(database):
                self.register(database)

    def replaces(self, requested: RequestedDatabase) -> bool:
        """Return whether pytest-arena replaces this database by one of the tests."""
        name = requested.name
        if requested.product not in self.products:
            return False
        if requested.product in FILE_PRODUCTS and (not name or self.at_file(name) is not None):
            return True
        return self.files.whose(name).is_at_stake

    def named(self, name: str) -> Database:
        """Return a database by the name that an engine has given it, "" for the first one.

        Raises:
            ConfigError: no engine of a supported product is known. Or no database has this name, or
                several have it.
        """
        if not name:
            if self.primary is None:
                raise ConfigError(
                    "there is no database for this test: no engine is known",
                    why=f"pytest-arena isolates {', '.join(SHOWN)}, and does not guess. In a "
                    "database of another product, the test would not see the app's changes",
                    cause="neither an import nor the start of arena_app has created an engine",
                    fix="arena_database = postgresql   (or the product that the app uses)\n"
                    "or import the module with the app's engine in conftest.py",
                )
            return self.primary
        self.register_engines()
        databases = {*self.by_key.values()}
        matching = [database for database in databases if name in database.tails]
        if len(matching) == 1:
            return matching[0]
        known = sorted(database.name for database in databases)
        raise ConfigError(
            f"there are {len(matching)} databases {name!r}",
            why="a database has the name of its file without the suffix, after as many folders as "
            "make it unique, or its name on the server, after its product if necessary",
            cause=f"known databases: {', '.join(known) or 'none'}\n{shown_line('')}".strip(),
            fix=f"arena.session(database={nearest(name, known or ['app'])!r})",
        )


def driver_of(database: Database) -> str:
    """Return the name of the app's driver, or "" for sqlite3, which URLs do not name."""
    if database.file and not database.dialect.is_async:
        return ""
    return database.dialect.driver


def redirected_url(database: Database, driver: str) -> URL:
    """Return the URL of an engine whose connections the gate redirects to a database.

    On a server the URL has no real host, because the name of the live database changes.
    """
    name = database.product.name
    if driver:
        name = f"{name}+{driver}"
    host = None if database.file else NOWHERE
    return URL.create(name, host=host, database=database.file or database.name)


# Workers and child runs inherit the new values. They read the original ones in this variable.
_ORIGINALS = "ARENA_ORIGINAL_URLS"


@dataclass(frozen=True)
class Environment:
    """Redirects the variables of ``arena_env``."""

    config: Config
    known: KnownDatabases
    originals: dict[str, URL] = field(default_factory=dict)  # by the variables

    def redirect(self) -> None:
        """Replace the URLs. The database of the first URL is the app's first database.

        Called again after the collection, because a conftest may have set a variable.

        Raises:
            ConfigError: the value of a variable is no URL.
        """
        for name in reversed(self.config.env):
            shown = os.environ.get(name)
            if not shown or shown in self.known.exported:
                continue
            text = _inherited().get(shown, shown)
            url = parse_url(text)
            if url is None:
                # The message does not show the value, which may hold a password.
                raise ConfigError(
                    f"arena_env names {name}, whose value is no database URL",
                    why="pytest-arena redirects the app by changing the URL in the variable. "
                    "Without that, the app would use your database",
                    cause=f"{self.config.place('env')} names the variable, by default "
                    "DATABASE_URL\nthe environment has its value, such as a path",
                    fix=f"{name}={FILES.name}:///dev.db pytest …   (a URL that the app reads)\n"
                    "or, if the value names no database: arena_env = another variable",
                )
            self.originals[name] = url
            new = text
            new_url = self._new_url(url)
            if new_url is not url:
                new = new_url.render_as_string(hide_password=False)
                # SQLAlchemy 2.1 writes the colon as %3A. An app may parse it without SQLAlchemy.
                new = new.replace("/file%3A", "/file:", 1)
            self.known.exported.add(new)
            with as_own():  # no level puts them back
                os.environ[name] = new
                os.environ[_ORIGINALS] = dumps({**_inherited(), new: text})

    def first_product(self) -> str:
        """Return the product that ``arena_database`` or the first variable names, or ""."""
        named = [name for name in self.config.env if name in self.originals]
        values = [self.config.database, *(self.originals[name].drivername for name in named)]
        return next(filter(None, map(product_of, values)), "")

    def _new_url(self, url: URL) -> URL:
        requested = requested_by_url(url)
        files = self.known.files
        if url.get_backend_name() in FILE_PRODUCTS:
            # A memory URL stays, so that the pool class stays. A free file stays.
            if requested is None or files.whose(requested.name) is Whose.FREE:
                return url
            file = self.known.prefer(requested).file
            if str(url.query.get("uri", "")).lower() in {"true", "1", "yes"}:
                file = f"file:{quote(file)}"
            return url.set(database=file)
        # The new URL has a host that does not exist. The gate redirects engines with this host. A
        # raw driver or another process fails to connect.
        is_redis = url.drivername in REDIS
        # The driver need not be installed.
        server = f"{url.host or 'localhost'}:{url.port or ''}"
        shown = f"{url.get_backend_name()}://{server}/{url.database}"
        if requested:
            shown = requested.name
        if is_redis:
            shown = redis_name(url.host, url.port, url.query.get("db") or url.database)
        if files.whose(shown) is Whose.FREE:
            return url
        # Without a name in the URL, `connect_args` may name the database.
        has_name = url.database or url.query.keys() & {"database", "dbname", "service"}
        if requested and has_name and requested.product in self.known.products:
            self.known.prefer(requested)
        query = url.difference_update_query(_ELSEWHERE).query
        # The private server has no certificate.
        drivername = "redis" if is_redis else url.drivername
        return URL.create(drivername, url.username, None, NOWHERE, None, url.database, query)


def _inherited() -> dict[str, str]:
    """Return the original value for each new URL."""
    return dict(loads(os.environ.get(_ORIGINALS, "{}")))


def parse_url(text: str) -> URL | None:
    """Return a URL of SQLAlchemy, or None if the text is something else."""
    with suppress(ArgumentError, ValueError):
        return make_url(text)
    return None


# Parameters of a URL that also name a server or a login.
_ELSEWHERE = {
    "dsn",
    "host",
    "hostaddr",
    "odbc_connect",
    "passfile",
    "password",
    "port",
    "service",
    "socket",
    "sslpassword",
    "unix_socket",
    "user",
}


# Other processes


def named_by(child: Child, files: AllowedFiles) -> str:
    """Return the app's database, or the path of a client, that arguments name, or ""."""
    words = words_of(child.arguments)
    urls = [word for word in words if "://" in word and NOWHERE not in word]
    named = [name for url in urls for name in files.same_on_servers(url)]
    named.append(client_by_path(words, child.folder))
    at_stake = [name for name in named if name and not allows(files.allowed, name)]
    return next(iter(at_stake), "") or file_in(words, files.of_engines(), child.folder)
