"""The clients of databases that a test starts: psql, mysqldump, redis-cli, sqlite3.

A folder in front of ``PATH`` has a program for each. So it does not matter who starts it: a test, a
shell, a script or a Makefile. It gives the client the test's database, or refuses it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from functools import cache
from getopt import GetoptError, getopt
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_arena._config._supported import FILES, allows, reached
from pytest_arena._interpreter import PROGRAM, send_refusal
from pytest_arena._values import Address
from pytest_arena.errors import UnknownDatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The last ones change other databases than the one to which they connect. They are refused.
_PRODUCTS = {
    "postgresql": "clusterdb pg_dump pg_restore psql reindexdb vacuumdb vacuumlo",
    "mysql": "mysql mysqladmin mysqlcheck mysqldump mysqlimport mysqlpump mysqlshow mysqlslap "
    "mariadb mariadb-admin mariadb-check mariadb-dump mariadb-import mariadb-show mariadb-slap",
    "redis": "redis-cli valkey-cli",
    FILES.name: "sqlite3",
    "": "createdb createuser dropdb dropuser mysqlsh pg_basebackup pg_dumpall pgbench",
}
_CLIENTS = {name: product for product, names in _PRODUCTS.items() for name in names.split()}
# The options for the place of an address. Those of MySQL name a user with rights on test databases.
_LOGIN = " --user={0.user} --password={0.password}"
_PLACES = {
    "postgresql": "--host={0.host} --port={0.port} --username={0.user} --dbname={0.database}",
    "mysql": "--protocol=TCP --host={0.host} --port={0.port}" + _LOGIN,
    "mysql socket": "--protocol=SOCKET --host=localhost --socket={0.host}" + _LOGIN,
    "redis": "-h 127.0.0.1 -p {0.port}",
}
_WORD = re.compile(r"[^\s'\"<>()\[\]{}|;`,?&=]+")
_PREFIX = "arena-clients-"
# Its option that drops and creates the database of the dump, also among other letters.
_CREATES = re.compile("--cr|-[^-dfFhIjLnNpPSTtUX]*C")
# Programs that start others with another PATH.
_OTHER_PLACES = {"su", "sudo", "doas", "runuser", "docker", "podman"}
_REMOVING = {"rm", "mv", "shred"}  # they also change all below a folder


@cache
def _folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix=_PREFIX)
    program = Path(folder.name, "client")
    command = f'exec {shlex.quote(sys.executable)} -Pm {__name__} "${{0##*/}}" "$@"'
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o700)
    return folder


@cache
def client_folder(path: str) -> str:
    """Return the folder with a program for each client of a ``PATH``."""
    folder = Path(_folder().name)
    for name in _CLIENTS:
        if shutil.which(name, path=path) and not (folder / name).exists():
            (folder / name).symlink_to("client")
    return str(folder)


def words_of(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command, and the words in each, such as those for a shell."""
    return [*arguments, *_WORD.findall(" ".join(arguments))]


def file_in(words: Sequence[str], files: Iterable[str], folder: str) -> str:
    """Return the file of these that a word names, also by a URL, or ""."""
    paths = [word.removeprefix("file:").rpartition(":///")[2] for word in words]
    paths = [str(Path(folder, path)) for path in paths]
    found = [reached(path, files) for path in paths]
    if _is_started(words, _REMOVING):
        below = [f"{os.path.realpath(path)}{os.sep}" for path in paths]
        found += [file for file in files if file.startswith(tuple(below))]
    return next(filter(None, found), "")


def _is_started(words: Iterable[str], programs: set[str]) -> bool:
    return any(word.rpartition("/")[2] in programs for word in words)


def client_by_path(words: Sequence[str], folder: str) -> str:
    """Return the path of a client, which bypasses the folder of the programs, or ""."""
    clients = [word for word in words if word.rpartition("/")[2] in _CLIENTS]
    if _is_started(words, _OTHER_PLACES):
        return next(iter(clients), "")
    paths = [Path(folder, word) for word in clients if "/" in word and _PREFIX not in word]
    return next((str(path) for path in paths if path.is_file()), "")


def main() -> NoReturn:
    """Run a client with the test's database, or refuse it."""
    _, name, *arguments = sys.argv
    folders = [each for each in os.get_exec_path() if _PREFIX not in each]
    program = shutil.which(name, path=os.pathsep.join(folders)) or sys.exit(f"{name}: not found")
    facts = loads(os.environ.get(PROGRAM) or "{}")
    if facts and arguments != ["--version"] and not allows(facts["allow"], program):
        try:
            arguments = _led(name, arguments, facts)
        except (LookupError, GetoptError) as reason:
            error = UnknownDatabaseError(
                f"refused: {shlex.join([name, *arguments])}",
                why="it may reach another database than the test's, which may be a real one",
                cause=f"{reason.args[0]}\nit was started in {Path.cwd()}",
                fix="use the test's database before (arena.url), and leave out what names another\n"
                f"or, if it may reach all databases: arena_allow = {program}",
            )
            send_refusal(facts["refusals"], error)
            sys.exit(str(error))
    os.execv(program, [name, *arguments])  # noqa: S606 - the user's own command


def _led(name: str, arguments: list[str], facts: Any) -> list[str]:
    """Return the arguments with which a client uses the test's database."""
    product = _CLIENTS[name]
    if product == FILES.name:
        file = file_in(words_of(arguments), facts["files"], "")
        if file:
            raise LookupError(f"{file} is a database of the app")
        return arguments
    address, names = _address(product, arguments, facts)
    kind = "mysql socket" if product == "mysql" and address.is_socket else product
    place = [part.format(address) for part in _PLACES[kind].split()]
    if product == "redis":  # the command is last, so the options are checked
        getopt(arguments, "23xn:r:i:", ["raw", "no-raw", "csv", "json", "scan", "pattern="])
        return [*place, *arguments]
    if product == "postgresql":
        _prepare(name, arguments, address)
    elif name in {"mysql", "mariadb"}:
        place.append(f"--database={address.database}")
    database = place[-1] if product == "postgresql" else address.database
    for index, each in enumerate(arguments):
        is_name = "/" not in each or "://" in each
        if is_name and each.partition("?")[0].rpartition("/")[2] in names:
            arguments[index] = database
    # The last option for a place counts. An option without its value takes the first one.
    arguments += place * 2
    if product == "postgresql":
        return arguments
    return ["--no-defaults", *[each for each in arguments if not each.startswith("--defaults-")]]


def _address(product: str, arguments: list[str], facts: Any) -> tuple[Address, dict[str, Address]]:
    """Return the address of the test's database that a client means, and those of all names."""
    known = {key: Address(*each) for key, each in facts["addresses"].items()}
    if facts["redis"]:
        known["redis/"] = Address("", facts["redis"], "", "")
    names = {key.partition("/")[2]: known[key] for key in known if key.startswith(f"{product}/")}
    is_only = len(names) == 1
    names |= {address.database: address for address in names.values()}
    words = words_of(arguments)
    found = {names[key].database: names[key] for key in names if is_only or key in words}
    if len(found) != 1 or "--" in arguments:
        shown = [*names] or "this program gets none"
        raise LookupError(f"it names {len(found)} of the tests' databases: {shown}")
    [address] = found.values()
    return address, names


def _prepare(name: str, arguments: Iterable[str], address: Address) -> None:
    """Set the variables of libpq, and check what is given to psql and pg_restore."""
    from pytest_arena._postgresql._driver_guard import WORDS  # noqa: PLC0415 - few clients
    from pytest_arena._product._statements import classify  # noqa: PLC0415 - as above

    for text in arguments:
        # The statement after `-c` or `--command=`, also after other letters.
        commands = [text, text.partition("=")[2]]
        if text.startswith("-"):
            commands += [text[found.end() :] for found in re.finditer("c", text)]
        meanings = [classify(command, WORDS) for command in commands]
        is_beyond = any(meaning.beyond or meaning.shared for meaning in meanings)
        if name == "pg_restore":
            is_beyond = _CREATES.match(text) is not None
        if is_beyond or re.search(r"\\c(onnect)?\b", text):
            raise LookupError(f"{text!r} reaches beyond the test's database")
    for variable in [*os.environ]:
        if variable.startswith(("PG", "POSIXLY_CORRECT")):
            del os.environ[variable]
    os.environ["PGPASSWORD"] = address.password


if __name__ == "__main__":
    main()
