"""Which database would a client program connect to, by the command line of a child process?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._databases._child_programs import child_programs
from pytest_arena._postgresql._connections import connections
from pytest_arena._values import Child

if TYPE_CHECKING:
    from pathlib import Path

OWN = "arena_test_0123456789abcdef"
VARIABLES = {"PATH": "/usr/bin", "PGUSER": "me", "URL": f"postgresql://me@db:5432/{OWN}"}

NAMED = {
    "psql shop": "localhost:5432/shop",
    "psql": "localhost:5432/me",
    "psql -U you": "localhost:5432/you",
    "psql -h db -p 5433 -U you -c 'TABLE a' shop": "db:5433/shop",
    "psql -Xqdshop -hdb": "db:5432/shop",
    "psql --host=db --port 5433 --dbname shop": "db:5433/shop",
    "psql 'host=db dbname=shop'": "db:5432/shop",
    "psql postgres://you:secret@db:5433/shop?sslmode=disable": "db:5433/shop",
    "psql -h else -d postgresql://db/shop": "db:5432/shop",
    "PGDATABASE=shop PGHOST=db psql": "db:5432/shop",
    "env PGDATABASE=shop psql": "localhost:5432/shop",
    "/usr/lib/postgresql/16/bin/psql.exe shop": "localhost:5432/shop",
    "sudo -u postgres psql shop": "localhost:5432/shop",
    "docker compose exec -T db psql -U me shop": "localhost:5432/shop",
    'docker exec db sh -c "psql shop"': "localhost:5432/shop",
    "ssh host 'psql shop < a.sql'": "localhost:5432/shop",
    "cd x && if ! psql -d shop 2>&1; then exit; fi": "localhost:5432/shop",
    "true | psql -f - >out shop": "localhost:5432/shop",
    "echo 'it is; psql' ; psql $NAME shop": "localhost:5432/$NAME",
    "pg_dump -Fc -n public -f out shop": "localhost:5432/shop",
    "pg_dumpall -l shop": "localhost:5432/shop",
    "pg_dumpall": "localhost:5432/postgres",
    "pg_restore -j 2 -d shop dump": "localhost:5432/shop",
    "createdb -O you -E UTF8 shop": "localhost:5432/shop",
    "dropdb --if-exists -h db shop": "db:5432/shop",
    "createuser -P you": "localhost:5432/postgres",
    "vacuumdb -z -j 4 -t orders shop": "localhost:5432/shop",
    "pgbench -i -s 2 shop": "localhost:5432/shop",
}
# They connect to no database, or to one of the arena's.
LET_THROUGH = (
    "psql --version",
    "pg_dump -V",
    "which psql",
    "git grep psql",
    "pg_restore -l dump",
    "pg_restore -f out dump",
    "initdb -D data",
    "pg_ctl start -D data",
    "pg_isready -h db",
    "docker run -d postgres:16",
    "psql $URL -c 'TABLE a' 2>/dev/null",
    "pg_dump ${URL} | gzip > shop.gz",
    f"psql -h db {OWN}",
    f"PGDATABASE={OWN} psql",
)


def named(*arguments: str) -> list[tuple[str, ...]]:
    """Return the databases of each client program."""
    found = [each for each in child_programs(Child(arguments, "", VARIABLES)) if each.is_client]
    return [connections.named_by_client(each.name, each.words, each.variables) for each in found]


@pytest.mark.parametrize("line", NAMED)
def test_a_client_program_names_a_database(line: str) -> None:
    """As a line for a shell, as `os.system` has it, and as `subprocess` has it."""
    assert named(line) == [(f"postgresql://{NAMED[line]}",)]
    assert named("/bin/sh", "-c", line) == named(line)


def test_words_that_no_shell_reads_stay_as_they_are() -> None:
    """A semicolon and a dollar mean nothing in them."""
    [(name,)] = named("psql", "-c", "TABLE a; TABLE $b", "shop")
    assert name == "postgresql://localhost:5432/shop"


@pytest.mark.parametrize("line", LET_THROUGH)
def test_a_command_that_reaches_no_other_database(line: str) -> None:
    """No client program, or one that is led."""
    assert set(named(line)) <= {()}


def test_two_programs_of_a_pipe() -> None:
    """The second one is as good as the first."""
    pipe = f"pg_dump {OWN} | psql shop"
    assert named("bash", "-ec", pipe) == [(), ("postgresql://localhost:5432/shop",)]


def test_several_hosts_are_refused_together() -> None:
    """Each of them has to be allowed."""
    assert named("psql", "host=a,b dbname=shop") == [
        ("postgresql://a:5432/shop", "postgresql://b:5432/shop")
    ]


@pytest.mark.parametrize(
    "script, database",
    [
        ("\\connect shop\n", "shop"),
        ("TABLE a;\n\\c shop\nTABLE b;\n", "shop"),
        ("\\connect -reuse-previous=on \"dbname='shop'\"\n", "shop"),
        (f"\\c {OWN} me\n", OWN),
        ("\\c - you\n\\copy a from a.csv\n", OWN),
    ],
)
def test_a_script_of_psql_switches_the_database(tmp_path: Path, script: str, database: str) -> None:
    """`pg_dump --create` writes such a line: the rows would land in the real database."""
    file = tmp_path / "dump.sql"
    file.write_text(script, encoding="utf-8")
    own = f"postgresql://me@db:5432/{OWN}"
    targets = [f"postgresql://db:5432/{database}"] if database != OWN else []
    for arguments in (("-f", str(file)), (f"--file={file}",), ("-c", "TABLE a", "-c", script)):
        [names] = named("psql", own, *arguments)
        assert list(names) == targets, arguments
