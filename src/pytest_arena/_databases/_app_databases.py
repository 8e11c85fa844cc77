"""The app's databases, its files, and the variables with its URLs."""

from __future__ import annotations

import itertools
import os
import re
import stat
import threading
import time
from contextlib import suppress
from fnmatch import fnmatch
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._config._load import nearest
from pytest_arena._config._supported import (
    FILE_FORMAT,
    FILE_PRODUCTS,
    FILES,
    MAINTENANCE_DATABASES,
    SUPPORTED,
    product_of,
)
from pytest_arena._gate._engines import (
    described_url,
    requested_by_engines,
    requested_by_url,
)
from pytest_arena._gate._gate_notes import another_product, unknown_product
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._origin import user_line
from pytest_arena._process import seconds
from pytest_arena._product import (
    NOWHERE,
    OF_RUN,
    Core,
    Database,
    Key,
    Product,
    RequestedDatabase,
    product_package,
)
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._config._read import Config
    from pytest_arena._gate._registry import Registry

FileStates = dict[str, list[tuple[int, int]]]
"""The times and sizes of files and of their write-ahead logs, by the files' paths."""


class Products:
    """The products that the options allow. The first use opens a product."""

    def __init__(self, core: Core, config: Config) -> None:
        self._core = core
        self._config = config
        self.opened: dict[str, Product] = {}
        self._opening = threading.RLock()

    def __contains__(self, name: object) -> bool:
        return name in SUPPORTED and (
            name in FILE_PRODUCTS or self._config.database not in FILE_PRODUCTS
        )

    def __getitem__(self, name: str) -> Product:
        with self._opening:
            if name not in self.opened:
                package = product_package(name)
                self.opened[name] = package.open_product(self._core, self._config)
            return self.opened[name]


class AllowedFiles:
    """Decides whether a file belongs to the app, to pytest-arena or to a test.

    The file's folder, ``arena_allow`` and the URLs of the app's engines decide.
    """

    def __init__(self, config: Config, temporary: Callable[[], Path | None]) -> None:
        below_root = [str(config.root / pattern) for pattern in config.allow]
        self.allowed: tuple[str, ...] = (*config.allow, *below_root)
        # Only these folders of the cache: it may hold files of other programs, too.
        cache = config.cache.resolve()
        self._folders = [cache / "templates", cache / "kept"]
        self.live: tuple[Path, ...] = ()  # the folders of live databases
        self.of_app: set[str] = set()  # real paths of files that engines name
        # The first state of each file, by real path. A controller of pytest-xdist sends them to its
        # workers.
        self.first_seen: FileStates = {}
        self._created: set[str] = (
            set()
        )  # files that this run had created when first seen
        # Folders that `register_present` has to search.
        self._unsearched = [config.root]
        self._temporary = temporary  # returns pytest's temporary folder, if it exists
        self._began = time.time()

    def allow_all(self) -> None:
        """Let tests connect to every database, and change the app's files."""
        self.allowed = ("*",)
        self.of_app.clear()

    def add_live(self, folder: Path) -> None:
        """Note the folder of live databases."""
        self.live = (folder,)

    def add(self, file: str) -> None:
        """Note that an engine of the app names this file. pytest-arena replaces its database."""
        self.of_app.add(self.register_opened(file))

    def register_opened(self, file: str) -> str:
        """Record the state of a file that an engine may name later. Return its real path."""
        path = real(file)
        if path not in self.first_seen:
            self.first_seen[path] = _signature(file)
            if self.first_seen[path] and not self._is_older(path):
                self._created.add(path)
        return path

    def register_present(self) -> None:
        """Record the states of the project's databases before its first child process starts.

        The child may change a file that an engine names later.
        """
        while self._unsearched:
            for file in _databases_below(self._unsearched.pop()):
                self.register_opened(file)

    def changed(self) -> list[str]:
        """Return the app's files that the tests or another program have changed in this run.

        A file that this run has created, such as a temporary file of a fixture, does not count.
        """
        files = sorted(self.of_app - self._created)
        return [file for file in files if _signature(file) != self.first_seen[file]]

    def unchanged(self) -> tuple[str, ...]:
        """Return the app's files that have not changed in this run."""
        return tuple(filter(self.is_of_earlier_run, self.of_app))

    def is_ours(self, file: str) -> bool:
        """Return whether the file is in a folder of pytest-arena."""
        path = Path(real(file))
        folders = [*self._folders, *self.live]
        if any(path.is_relative_to(folder) for folder in folders):
            return True
        # A template of this run is beside the folder of live databases.
        is_of_run = path.parent.name.startswith(OF_RUN)
        return is_of_run and path.parent.parent in [each.parent for each in self.live]

    def is_free(self, file: str) -> bool:
        """Return whether tests may open this file: in pytest's folder or by ``arena_allow``."""
        temporary = self._temporary()
        if temporary is not None and Path(real(file)).is_relative_to(temporary):
            return True
        for name in {file, real(file)}:
            names = [name, *(f"{product}:///{name}" for product in FILE_PRODUCTS)]
            if any(map(self.is_allowed, names)):
                return True
        return False

    def is_allowed(self, name: str) -> bool:
        """Return whether ``arena_allow`` allows this database.

        A relative path starts at the root. If the name has several hosts, all must be allowed.
        """
        names = [name]
        match = _HOSTS.fullmatch(name)
        if match:
            start, hosts, end = match.groups()
            names = [f"{start}{host}{end}" for host in hosts.split(",")]
        return all(map(self._is_allowed_name, names))

    def _is_allowed_name(self, name: str) -> bool:
        if name in self.allowed:
            return True
        return any(fnmatch(name, pattern) for pattern in self.allowed)

    def belongs_to_app(self, file: str) -> bool:
        """Return whether an engine names this file, so that pytest-arena replaces its database.

        The engine need not have connected.
        """
        if self.is_free(file):
            return False
        path = real(file)
        return path in self.of_app or path in map(real, _named_by_engines())

    def is_of_earlier_run(self, file: str) -> bool:
        """Return whether this is a database file that has not changed since the run began."""
        if not self._is_older(file) or self.is_ours(file) or self.is_free(file):
            return False
        return _is_database(file)

    def _is_older(self, file: str) -> bool:
        """Return whether a file has not changed since the run began.

        The time of the inode counts, because a copy of an old file may keep that file's times.
        """
        try:
            status = os.lstat(file)
        except (OSError, ValueError):
            return False
        is_old = status.st_ctime < self._began - _CLOCK_STEP
        return is_old and stat.S_ISREG(status.st_mode)


_HOSTS = re.compile(r"(\w+://)([^/]+)(/.*)")


# Linux takes a file's times from a clock that ticks each 1 to 10 ms.
_CLOCK_STEP = 0.02  # seconds


def _is_database(file: str) -> bool:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(len(FILE_FORMAT.header)) == FILE_FORMAT.header
    except OSError:
        return False


_LONGEST_SEARCH = 0.5  # seconds
_NAME_OF_DATABASE = re.compile(FILE_FORMAT.name)
_FOLDER_OF_TOOL = re.compile(r"\.|(node_modules|site-packages)$")


def _databases_below(folder: Path) -> Iterator[str]:
    """Yield files in a folder and below it that have the name of a database.

    The search stops after half a second.
    """
    latest = seconds() + _LONGEST_SEARCH
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _FOLDER_OF_TOOL.match(name)]
        for name in filter(_NAME_OF_DATABASE.search, names):
            file = str(Path(place, name))
            if any(size for _, size in _signature(file)):
                yield file
        if seconds() > latest:
            return


def real(file: str) -> str:
    """Return the path of a file without links. Return an impossible name unchanged."""
    try:
        return os.path.realpath(file)
    except ValueError:  # a NUL, or half a surrogate pair
        return file


def _named_by_engines() -> Iterator[str]:
    for database in requested_by_engines(known_engines.find()):
        if database.product in FILE_PRODUCTS and database.name:
            yield database.name


def _signature(file: str) -> list[tuple[int, int]]:
    """Return the times and sizes of a file and of its write-ahead log."""
    signature = []
    for path in (file, f"{file}{FILE_FORMAT.logs[0]}"):
        with suppress(OSError):
            status = Path(path).stat()
            # An empty log does not count, because a reader creates one.
            if status.st_size or path == file:
                signature.append((status.st_mtime_ns, status.st_size))
    return signature


class KnownDatabases:
    """The databases of the app that pytest-arena replaces.

    An engine requests the file in its URL, or the database of that name on a server. Each memory
    engine has a separate database. An engine keeps its first database, also after a change of the
    working folder.
    """

    def __init__(
        self,
        config: Config,
        products: Products,
        files: AllowedFiles,
        connections: Registry,
    ) -> None:
        self._config = config
        self.products = products
        self.files = files
        self._connections = connections
        self.by_key: dict[Key, Database] = {}  # with or without a connection
        self._registering = threading.RLock()
        self.requested: dict[str, None] = {}  # names of requested databases on servers
        self.in_memory = 0  # the number of memory databases so far
        # Dropped databases that had content: the name of each, and its names in options.
        self.ended: dict[str, list[str]] = {}
        self._count = itertools.count(1)
        self.primary: Database | None = None
        # A dropped primary database. The next engine probably has the same product.
        self._former: Database | None = None
        self.tried = ""  # what was tried to find the app's engines, if none is known
        self.exported: set[str] = set()  # the values of redirected variables

    def note_tried(self, words: str) -> None:
        """Note what was tried to find the app's engines."""
        self.tried = words

    def at_file(self, file: str) -> Database | None:
        """Return the database with this live file, None for another file."""
        by_file = {database.file: database for database in [*self.by_key.values()]}
        if file not in by_file or os.path.islink(file):  # noqa: PTH114 - pathlib is slower
            file = real(file)
        return by_file.get(file)

    def find(self, requested: RequestedDatabase) -> Database | None:
        """Return the requested database, if it is known."""
        known = known_engines.database_of(requested.dialect)
        if known is not None:
            return known
        if requested.product in FILE_PRODUCTS and requested.name:
            at_file = self.at_file(requested.name)
            if at_file is not None:
                return at_file
        key, _ = self.products[requested.product].identify(requested)
        if key is None:
            return None
        return self.by_key.get(key)

    def register(self, requested: RequestedDatabase) -> Database:
        """Return the requested database, which is empty before its first connection.

        Raises:
            ConfigError: a test already uses a database of another product for it.
        """
        with self._registering:
            database = self.find(requested) or self._add(requested)
            if database.product.name != requested.product:
                raise another_product(database, requested.product)
            # Skip an engine of pytest-arena: it has a database, and may have another login.
            if known_engines.database_of(requested.dialect) is None:
                database.name_by_engine(requested.login)
                known = known_engines.of(requested.dialect)
                known.redirect_to(database)
                dialect = type(requested.dialect)
                database.use_dialect(dialect, is_of_engine=known.had_engine)
            return database

    def name(self, requested: RequestedDatabase) -> Database:
        """Register a database that a variable names."""
        is_new = self.find(requested) is None
        database = self.register(requested)
        if is_new:
            database.name_by_variable()
        return database

    def _add(self, requested: RequestedDatabase) -> Database:
        product = self.products[requested.product]
        key, tails = product.identify(requested)
        if key is None:
            self.in_memory += 1
            key = Key("memory", str(next(self._count)))
        database = self._adopt_expected(key, tails, requested)
        if database is None:
            database = self._new(key, tails, requested)
        self.by_key[key] = database
        if requested.product not in FILE_PRODUCTS:
            self.requested[requested.name] = None
        elif requested.name:
            self.files.add(requested.name)
        if self.primary is None:
            self.primary = database
        return database

    def _new(
        self, key: Key, tails: tuple[str, ...], requested: RequestedDatabase
    ) -> Database:
        product = self.products[requested.product]
        name = self._free_name(tails or ("memory",))
        return Database(
            key,
            name,
            tails or (name,),
            product,
            type(requested.dialect),
            live=self._new_file(product, Path(requested.name).name or "memory.db"),
            born=next(self._count),
        )

    def _free_name(self, tails: tuple[str, ...]) -> str:
        used = {database.name for database in self.by_key.values()}
        for name in reversed(tails):
            if name not in used:
                return name
        return f"{next(self._count)}-{tails[-1]}"

    def _new_file(self, product: Product, name: str) -> Path | None:
        used = {
            database.live.name.lower()
            for database in self.by_key.values()
            if database.live is not None
        }
        live = product.new_file(name, used)
        if live is not None:
            self.files.add_live(live.parent)
        return live

    def drop(self, database: Database) -> None:
        """Drop a database that the app no longer uses. Its engines get another one later."""
        if database.isolation is not None:
            self.ended[database.name] = self.names_in_options(database)
        del self.by_key[database.key]
        if self.primary is database:
            # The database of the next engine becomes the primary one.
            self.primary = None
            self._former = database
        for engine in known_engines.on(database):
            engine.redirect_to(None)
        self._connections.forget(database.key)
        database.product.remove(database)

    def give_up_first(self, key: Key | None, name: str) -> None:
        """Forget the app's first database if it is a maintenance database with this key.

        The engine on it only creates the test database ``name``. The next engine's database becomes
        the first.
        """
        first = self.primary
        if first is None or first.key != key:
            return
        if first.tails not in [(database,) for database in MAINTENANCE_DATABASES]:
            return
        if any(name in database.tails for database in self.by_key.values()):
            return
        self.primary = None
        self._former = first

    def add_own(self, engine: Engine, database: Database) -> None:
        """Redirect an engine of pytest-arena to a database, regardless of its URL."""
        known = known_engines.of(engine.dialect)
        known.mark_own(engine)
        known.redirect_to(database)

    # The app's first database, also before any engine exists.

    def find_engines(self, connecting: Dialect | None = None) -> bool:
        """Register the databases of the app's engines, if no first database is known.

        ``connecting`` is the dialect of the engine that connects now. Return whether the product of
        the app is known.
        """
        if self.primary is None:
            engines = known_engines.find_in_use()
            if any(engine.dialect is not connecting for engine in engines):
                self.choose_primary(requested_by_engines(engines))
        return self.primary is not None or self._former is not None

    def choose_primary(self, requested: list[RequestedDatabase]) -> None:
        """Register the databases of existing engines, and memory databases last."""
        in_memory_last = sorted(requested, key=lambda database: not database.name)
        for database in in_memory_last:
            if database.product in self.products and self.is_the_apps(database):
                self.register(database)

    def prefer(self, requested: RequestedDatabase) -> None:
        """Make this the app's first database, unless tests already use another one."""
        if self.primary is not None and self.primary.isolation is not None:
            return
        if requested.product not in self.products or not requested.name:
            return
        if self.is_the_apps(requested):
            self.primary = self.name(requested)

    def is_the_apps(self, requested: RequestedDatabase) -> bool:
        """Return whether pytest-arena replaces this database: it is the app's, not a test's."""
        if requested.product not in FILE_PRODUCTS:
            return not self.files.is_allowed(requested.name)
        return not self.is_never_replaced(requested.name)

    def is_never_replaced(self, file: str) -> bool:
        """Return whether a file belongs to pytest-arena or to a test, or is allowed."""
        if not file or self.at_file(file) is not None:
            return False
        return self.files.is_ours(file) or self.files.is_free(file)

    def named(self, name: str) -> Database:
        """Return a database by the name that an engine or an option has given it.

        Without a name, return the app's first database. If no engine is known, the next engine gets
        the returned database.

        Raises:
            ConfigError: no engine of a supported product is known. Or no database has this name, or
                several have it.
        """
        if not name:
            if self.primary is None:
                names = self.named_by_options() or [""]
                first = "" if "" in names else names[0]
                self.primary = self._expected(first)
            return self.primary
        databases = [*self.by_key.values()]
        matching = [database for database in databases if name in database.tails]
        if len(matching) > 1:
            raise _several_named(name, matching)
        if matching:
            return matching[0]
        options = self.named_by_options()
        if name in options:
            return self._expected(name)
        known = {database.name for database in databases}
        known.update(options)
        raise _none_named(name, sorted(known - {""}))

    def _expected(self, name: str) -> Database:
        """Return a database that a test needs before its engine exists.

        The first engine on a database of this name gets it. Without a name, the first engine does.
        """
        key = Key("expected", name)
        if key not in self.by_key:
            name = name or "app"
            product, dialect = self._product_of_engines()
            live = self._new_file(product, f"{name}.db")
            self.by_key[key] = Database(key, name, (name,), product, dialect, live=live)
        return self.by_key[key]

    def _product_of_engines(self) -> tuple[Product, type[Dialect]]:
        """Return the product and dialect of the app's engines, else of ``arena_database``."""
        known = self.primary or next(iter(self.by_key.values()), self._former)
        if known is not None:
            return known.product, known.dialect
        if self._config.database == "auto":
            urls = [described_url(engine.url) for engine in known_engines.find_in_use()]
            raise unknown_product(self.tried, ", ".join(dict.fromkeys(urls)))
        product = self.products[product_of(self._config.database)]
        return product, dialects(product)[0]

    def _adopt_expected(
        self, key: Key, tails: tuple[str, ...], requested: RequestedDatabase
    ) -> Database | None:
        """Return the expected database for this engine, with the engine's key and names.

        Return None if no test expects such a database.
        """
        for name in (*tails, ""):
            expected = self.by_key.get(Key("expected", name))
            if expected is not None:
                break
        else:
            return None
        if expected.product.name != requested.product:
            raise another_product(expected, requested.product)
        # Remove it first, so that `_free_name` does not count its present name.
        del self.by_key[expected.key]
        self._connections.rename(expected.key, key)  # a test may use it already
        if not name and tails:
            name = self._free_name(tails)
        expected.identify(key, name or expected.name, tails or expected.tails)
        return expected

    def names_in_options(self, database: Database) -> list[str]:
        """Return the names by which an option may have a value for a database.

        The name "" means the app's first database.
        """
        names = [*database.tails]
        if database is self.primary:
            names.append("")
        return names

    def named_by_options(self) -> list[str]:
        """Return the names of databases that options have values for."""
        return [*self._config.schema, *self._config.seed]


def _several_named(name: str, matching: list[Database]) -> ConfigError:
    tails = reversed(matching[0].tails)
    longer = next(tail for tail in tails if "/" in tail)
    full_names = ", ".join(database.tails[0] for database in matching)
    return ConfigError(
        f"there are {len(matching)} databases {name!r}",
        why="the name does not say which of them to use",
        cause=f"{full_names}\n{user_line() or ''}".strip(),
        fix=f"arena.session(database={longer!r})",
    )


def _none_named(name: str, names: list[str]) -> ConfigError:
    similar = nearest(name, names) if names else "app"
    known = ", ".join(names) or "none"
    return ConfigError(
        f"there is no database {name!r}",
        why="a database has the name of its file without the suffix, or its name on the server",
        cause=f"known databases: {known}\n{user_line() or ''}".strip(),
        fix=f"arena.session(database={similar!r})",
    )


def dialects(product: Product) -> list[type[Dialect]]:
    """Return the dialects of the installed drivers, or the product's default dialect."""
    names = []
    for driver in product.drivers():
        suffix = f"+{driver}" if driver else ""
        names.append(f"{product.name}{suffix}")
    if not names:
        names = [product.name]
    return [make_url(f"{name}://").get_dialect() for name in names]


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


class Environment:
    """Redirects the variables of ``arena_env``, and restores them.

    It also sets unset variables, once the app's first database is known. Otherwise another process
    would use the app's default database.
    """

    def __init__(self, config: Config, known: KnownDatabases) -> None:
        names = config.env
        self._known = known
        self._names = names
        self._place = config.place("env")
        self._before = {name: os.environ.get(name) for name in (*names, _ORIGINALS)}
        inherited = _inherited()
        self._originals: dict[str, str] = {}
        self._unset: list[str] = []
        for name in names:
            url = os.environ.get(name)
            if url:
                self._originals[name] = inherited.get(url, url)
            if not self._originals.get(name):
                self._unset.append(name)

    def redirect(self) -> None:
        """Replace the URLs. The database of the first URL is the app's first database.

        Raises:
            ConfigError: the value of a variable is no URL.
        """
        redirected = {}
        for name, text in self._originals.items():
            if not text:
                del os.environ[name]  # the parent run has set it
                continue
            url = parse_url(text)
            if url is None:
                # The message does not show the value, which may hold a password.
                raise ConfigError(
                    f"arena_env names {name}, whose value is no database URL",
                    why="pytest-arena redirects the app by changing the URL in the variable. "
                    "Without that, the app would use your database",
                    cause=f"{self._place} names the variable\n"
                    "the environment has its value, such as a path",
                    fix=f"{name}={FILES.name}:///dev.db pytest …   (a URL that the app reads)\n"
                    "or, if the value names no database: arena_env = another variable",
                )
            redirected[name] = self._inside(text, url)
        self._put(redirected)

    def complete(self) -> None:
        """Set the unset variables, if the app's first database is known.

        The first variable gets the URL of the app's first database. Other variables get the URL of
        a database that does not exist.
        """
        first = self._known.primary
        if not self._unset or first is None or first.key.kind == "expected":
            return
        url = redirected_url(first, driver_of(first))
        missing = f"/{NOWHERE}/nowhere" if first.file else NOWHERE
        completed = {}
        for name in self._unset:
            if os.environ.get(name):
                continue
            own_url = url if name == self._names[0] else url.set(database=missing)
            completed[name] = str(own_url)
        self._unset = []
        self._put(completed)

    def originals(self) -> dict[str, URL | None]:
        """Return the original URL of each variable, None if it was unset or is no URL."""
        originals = self._originals
        return {name: parse_url(originals.get(name, "")) for name in self._names}

    def _put(self, new: dict[str, str]) -> None:
        os.environ.update(new)
        self._known.exported.update(new.values())
        originals = {url: self._originals.get(name, "") for name, url in new.items()}
        os.environ[_ORIGINALS] = dumps(_inherited() | originals)

    def written_since(self) -> RequestedDatabase | None:
        """Return the database in a variable that a conftest has set since, None without one."""
        for name in self._names:
            text = os.environ.get(name, "")
            if text in self._known.exported:
                continue
            url = parse_url(text)
            database = requested_by_url(url)
            if url is not None and database is not None and names_database(url):
                return database
        return None

    def _inside(self, text: str, url: URL) -> str:
        new = self._new_url(url)
        if new is url:
            return text
        new_text = new.render_as_string(hide_password=False)
        # SQLAlchemy 2.1 writes the colon as %3A. An app may parse the URL without SQLAlchemy.
        return new_text.replace("/file%3A", "/file:", 1)

    def _new_url(self, url: URL) -> URL:
        requested = requested_by_url(url)
        files = self._known.files
        if url.get_backend_name() in FILE_PRODUCTS:
            # A memory URL stays, so that the pool class stays. A free file stays.
            if requested is None or not requested.name or files.is_free(requested.name):
                return url
            file = self._known.name(requested).file
            if str(url.query.get("uri", "")).lower() in {"true", "1", "yes"}:
                file = f"file:{quote(file)}"
            return url.set(database=file)
        # The new URL has a host that does not exist. The gate redirects engines with this host. A
        # raw driver or another process fails to connect.
        shown = requested.name if requested else described_url(url)
        if files.is_allowed(shown):
            return url
        is_named = names_database(url)
        if is_named and requested and requested.product in self._known.products:
            self._known.name(requested)
        query = url.difference_update_query(_ELSEWHERE | _SECRET).query
        return URL.create(
            url.drivername, url.username, None, NOWHERE, None, url.database, query
        )

    def restore(self) -> None:
        """Restore the variables."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _inherited() -> dict[str, str]:
    """Return the original value for each new URL, "" if the variable was unset."""
    return dict(loads(os.environ.get(_ORIGINALS, "{}")))


def parse_url(text: str) -> URL | None:
    """Return a URL of SQLAlchemy, or None if the text is something else."""
    with suppress(ArgumentError, ValueError):
        return make_url(text)
    return None


def names_database(url: URL) -> bool:
    """Return whether a URL names its database. Otherwise ``connect_args`` may name it."""
    if url.get_backend_name() in FILE_PRODUCTS:
        return True
    return bool(url.database or url.query.keys() & _DATABASE)


_DATABASE = {"database", "dbname", "service"}
# Parameters of a URL that also name a server.
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
