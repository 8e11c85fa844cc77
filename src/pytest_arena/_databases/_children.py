"""Checks which databases of the app a child process may open.

pytest-arena does not guard a child process. It refuses to start a child whose arguments name a
database of the app. It notes a child if the child's environment, or the app's code, names a
database of the app.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._supported import (
    FILE_PRODUCTS,
    SUPPORTED,
    with_dialect,
)
from pytest_arena._databases._app_databases import parse_url, real
from pytest_arena._databases._child_programs import child_programs
from pytest_arena._databases._variables_read import is_read
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._engines import requested_by_engines, requested_by_url
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._origin import line_that_pytest_called, user_line
from pytest_arena._product import (
    NOWHERE,
    UNNAMED,
    product_package,
)
from pytest_arena._values import Child, CodeLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy.engine import URL

    from pytest_arena._config._read import Config
    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._databases._child_programs import ChildProgram
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import RequestedDatabase

__tracebackhide__ = True  # tracebacks end at the user's line

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>()\[\]{}|;`]+")
_PATH = re.compile(r"[^\s'\"<>()\[\]{}|;`=,:?&]+")


# A child process, the programs that it runs, and the line of code that started it.
_EarlyChild = tuple[Child, "list[ChildProgram]", CodeLine]


class Children:
    """Checks the arguments and variables of child processes."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        known: KnownDatabases,
        names_test_database: Callable[[Iterable[str]], bool],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._known = known
        self._names_test_database = names_test_database
        self.warnings: dict[str, None] = {}  # for the reports of failed tests
        # The lines that started processes, with the names of the programs.
        self.starts: dict[str, None] = {}
        # The children that were started before the app had an engine, or outside of levels.
        self._early: list[_EarlyChild] = []
        # The app's databases on servers, which the workers report. The controller imports no app.
        self._servers_of_workers: dict[str, None] = {}
        self._url_of_workers = ""

    def check(self, child: Child, *, in_level: bool) -> None:
        """Refuse a child that surely opens a database of the app. Note a child that may open one.

        Raises:
            ProductionDatabaseError: the arguments, or Alembic's configuration file, name a database
                that ``arena_allow`` does not allow.
        """
        reader = self._reader(child.folder)
        for argument in child.arguments:
            name = reader.named_in(argument)
            if name:
                refusal = _gate_notes.child_naming(name, "arguments name")
                raise self._ledger.refused(refusal)
        programs = list(child_programs(child))
        for program in programs:
            self._check_configuration(program, reader)
        line = user_line()
        if line is None:
            return  # a library starts the child, such as pytest-xdist
        place = line.short
        called = line_that_pytest_called()
        if called not in {None, line}:
            place = f"{called.short} ({place})"
        self.starts[f"{_program_name(child)} at {place}"] = None
        if self._known.primary is None or not in_level:
            self._early.append((child, programs, line))
            return
        named = [*self._named_by(child.variables, reader, line)]
        for _, words in named:
            self._warn(words)
        for program in programs:
            if program.may_run_app and not named:
                self._warn(self._without_database(program, reader, line))

    def early(self) -> str:
        """Return the early children of a controller as JSON, for `take_over` in a worker.

        JSON escapes undecodable bytes of a command, which pytest-xdist cannot send.
        """
        records = []
        for child, _, line in self._early:
            command = (child.arguments, child.folder, {**child.variables})
            place = (line.file, line.number)
            records.append((command, place))
        return json.dumps(records)

    def take_over(self, records: str) -> None:
        """Add the early children of the controller, which imports no app and cannot check them."""
        for command, place in json.loads(records):
            child = Child(*command)
            programs = list(child_programs(child))
            line = CodeLine(*place)
            self._early.append((child, programs, line))

    def servers(self) -> tuple[tuple[str, ...], str]:
        """Return the app's databases on servers, and a database that its code names."""
        reader = self._reader(os.curdir)
        return reader.servers, reader.url_of_code()

    def learn(self, servers: Iterable[str], url_of_code: str) -> None:
        """Record the result of ``servers`` in a worker."""
        self._servers_of_workers.update(dict.fromkeys(servers))
        self._url_of_workers = url_of_code or self._url_of_workers

    def check_early(self) -> tuple[str, ...]:
        """Check the children that started before the app had an engine, or outside of levels.

        Note a child that may open a database of the app. Return a line for each child that names a
        database on a server, because no file shows whether the child has changed it. Variables
        count only for Python, scripts of a shell, and builders such as make. Another program may
        inherit variables that it does not use.
        """
        failures: dict[str, None] = {}

        def name_database(words: str, name: str) -> None:
            if "://" in name:
                failures[words] = None
            else:
                self._warn(words)

        early = self._early
        self._early = []
        for child, programs, line in early:
            reader = self._reader(child.folder)
            for name in filter(None, map(reader.named_in, child.arguments)):
                name_database(_gate_notes.child_early(name, line), name)
            for program in programs:
                has_named = False
                for name, words in self._in_variables(program, reader, line):
                    has_named = True
                    surely_opened = name if program.may_run_app else ""
                    name_database(words, surely_opened)
                if program.may_run_app and not has_named:
                    words = self._without_database(program, reader, line)
                    is_of_app = bool(words) and reader.is_code_of_app(program)
                    surely_opened = "://" if is_of_app else ""
                    name_database(words, surely_opened)
        return tuple(failures)

    def _has_tests_database(self, program: ChildProgram) -> bool:
        return self._names_test_database([*program.words, *program.variables.values()])

    def _reader(self, folder: str) -> _NamedDatabases:
        return _NamedDatabases(
            self._config,
            self._known,
            folder,
            servers=self._servers_of_workers,
            url_of_code=self._url_of_workers,
        )

    def _check_configuration(
        self, program: ChildProgram, reader: _NamedDatabases
    ) -> None:
        name = reader.named_in(program.configuration)
        if name and not self._has_tests_database(program):
            refusal = _gate_notes.child_naming(name, "configuration names")
            raise self._ledger.refused(refusal)

    def _without_database(
        self, program: ChildProgram, reader: _NamedDatabases, line: CodeLine
    ) -> str:
        """Return a note for a Python program that may read a server's URL in the app's code, or "".

        A program that inherits a variable of ``arena_env`` gets a URL whose host does not exist.
        """
        if self._has_tests_database(program):
            return ""
        name = reader.url_of_code()
        if name and not is_read(self._config.env):
            return _gate_notes.python_by_code(name, self._config.env, line)
        for variable in self._config.env:
            leads_nowhere = NOWHERE in os.environ.get(variable, "")
            if leads_nowhere and variable not in program.variables:
                return _gate_notes.python_without(variable, line)
        return ""

    def _in_variables(
        self, program: ChildProgram, reader: _NamedDatabases, line: CodeLine
    ) -> Iterator[tuple[str, str]]:
        if program.may_run_app or program.may_run_others:
            yield from self._named_by(program.variables, reader, line)

    def _named_by(
        self, variables: Mapping[str, str], reader: _NamedDatabases, line: CodeLine
    ) -> Iterator[tuple[str, str]]:
        """Yield each database of the app that a variable names, and a note about it."""
        for variable, value in variables.items():
            if variable.startswith("ARENA_"):
                continue
            name = reader.named_by(value)
            if name:
                # arena_env can only redirect a value in the environment of this process.
                is_inherited = os.environ.get(variable) == value
                can_redirect = is_inherited and variable not in self._config.env
                yield (
                    name,
                    _gate_notes.child_by_variable(
                        name, variable, line, can_redirect=can_redirect
                    ),
                )

    def _warn(self, warning: str) -> None:
        if not warning:
            return
        self._ledger.note(warning)
        self.warnings[warning] = None


def _program_name(child: Child) -> str:
    """Return the name of a child's program. Its arguments may have secrets."""
    words = " ".join(child.arguments).split()
    if not words or "=" in words[0]:
        return "a process"
    return Path(words[0]).name


class _NamedDatabases:
    """Finds databases of the app in arguments and variables of a child that runs in a folder."""

    def __init__(
        self,
        config: Config,
        known: KnownDatabases,
        folder: str,
        *,
        servers: Iterable[str] = (),
        url_of_code: str = "",
    ) -> None:
        self._config = config
        self._known = known
        self._folder = folder
        self._of_engines = requested_by_engines(known_engines.find())
        self._url_of_code = url_of_code
        self._servers = [*known.requested, *servers]
        files = [*known.files.of_app]
        for database in self._of_engines:
            self._servers.append(database.name)
            files.append(database.name)
        self._file_names = {Path(file).name for file in files}

    def named_in(self, argument: str) -> str:
        """Return the app's database that an argument names in any place, or ""."""
        words = [argument]
        words += _URL.findall(argument)
        words += _PATH.findall(argument)
        for word in dict.fromkeys(words):
            name = self.named_by(word)
            if name:
                return name
        return ""

    def named_by(self, text: str) -> str:
        """Return the app's database that a text names, in the form of ``arena_allow``, or ""."""
        if "://" not in text:
            return self._file_at(text)
        url = parse_url(with_dialect(text))
        if url is None:
            return ""
        if url.get_backend_name() in FILE_PRODUCTS:
            file_or_uri = url.database or ""
            return self._file_at(file_or_uri.removeprefix("file:").partition("?")[0])
        database = requested_by_url(_with_known_driver(url))
        if database is None or not self._is_outside(database):
            return ""
        if not self.is_of_app(database.name):
            return ""
        return database.name

    def _file_at(self, path: str) -> str:
        """Return the app's file at a path, without links, or ""."""
        # Skip words such as `test`, which are rarely paths.
        if "." not in path and "/" not in path:
            return ""
        # Check the name first, because reading the disk for each word of a command is slow.
        if Path(path).name not in self._file_names:
            return ""
        files = self._known.files
        file = str(Path(self._folder, path))
        if self._known.at_file(file) is not None:
            return ""
        if files.is_ours(file) or not files.belongs_to_app(file):
            return ""
        return real(file)

    def is_of_app(self, name: str) -> bool:
        """Return whether the app has a database of this name on a server, on any host."""
        product, _, place = name.partition("://")
        start = f"{product}://"
        _, _, database = place.partition("/")
        end = f"/{database}"
        return any(
            known.startswith(start) and known.endswith(end) for known in self._servers
        )

    def url_of_code(self) -> str:
        """Return a database on a server that an engine names without ``arena_env``, or ""."""
        for database in self._of_engines:
            if database.product not in FILE_PRODUCTS and self._is_outside(database):
                return database.name
        return self._url_of_code

    def is_code_of_app(self, program: ChildProgram) -> bool:
        """Return whether the code of a Python program names a database, or imports the app."""
        code = program.code()
        package = re.escape(re.split(r"[.:]", self._config.app)[0])
        if package and re.search(rf"(?m)^\s*(?:import|from)\s+{package}\b", code):
            return True
        return "://" in self.named_in(code)

    @property
    def servers(self) -> tuple[str, ...]:
        """The app's databases on servers."""
        return tuple(name for name in self._servers if "://" in name)

    def _is_outside(self, database: RequestedDatabase) -> bool:
        if NOWHERE in database.name or UNNAMED in database.name:
            return False
        if self._config.drivers == "off":
            return False
        if self._known.files.is_allowed(database.name):
            return False
        if database.product not in SUPPORTED:
            return True
        connections = product_package(database.product).connections
        return not connections.owns(database.name)


def _with_known_driver(url: URL) -> URL:
    """Return the URL with an engine's driver. The child's driver may not be installed here."""
    backend = url.get_backend_name()
    for engine in known_engines.find():
        if engine.dialect.name == backend:
            return url.set(drivername=f"{backend}+{engine.dialect.driver}")
    return url
