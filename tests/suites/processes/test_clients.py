"""A client of a database works on the test's database, whatever its arguments name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from async_app import engine

PRODUCT = engine.dialect.name
INSERT = "INSERT INTO orders (item, status) VALUES ('psql', 'new')"
POSTGRESQL = """
psql -c "$SQL"
psql -hdb.example.org -Ume -dshop_dev -qAtc "$SQL"
psql "host=db.example.org dbname=shop_dev" -c "$SQL"
psql "postgresql:///?host=db.example.org&dbname=shop_dev" -c "$SQL"
psql "$DATABASE_URL" -c "$SQL"
POSIXLY_CORRECT=1 psql shop_dev me -c "$SQL" -o
PGHOST=db.example.org PGDATABASE=shop_dev PGOPTIONS=-cnone=1 psql -f seed.sql
PGSERVICE=dev PGSERVICEFILE=services.conf psql -c "$SQL"
PGSERVICE=missing psql -c "$SQL"
cat seed.sql | env PGHOSTADDR=192.0.2.1 psql service=dev
psql <seed.sql && pg_dump -at orders shop >dump && psql -c 'DELETE FROM orders' && psql -f dump
psql <seed.sql && pg_dump "$DATABASE_URL" -Fc -f dump && pg_restore -cd shop_dev dump
"""
MYSQL = """
mysql -e "$SQL"
mysql < seed.sql
mariadb -hdb.example.org -ume -psecret -Dshop_dev -e "$SQL"
mysql shop -e "$SQL"
MYSQL_HOME=. MYSQL_TCP_PORT=1 MYSQL_UNIX_PORT=no mysql -e "$SQL"
HOME=. mariadb -e "$SQL"
mysql --defaults-extra-file=my.cnf -e "$SQL"
mysql < seed.sql; mysqldump shop > dump && mysql < dump
mariadb -e "DELETE FROM mysql.db"; mysql -e "$SQL"
"""
SQLITE = """
sqlite3 "$FILE" "$SQL"
sqlite3 -batch "$FILE" < seed.sql
"""
texts = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "mysql": MYSQL}
COMMANDS = texts[PRODUCT].strip().splitlines()
PATH = os.environ["PATH"].partition(os.pathsep)[2]  # without the guard
CLIENT = COMMANDS[0].split()[0]
pytestmark = pytest.mark.skipif(shutil.which(CLIENT) is None, reason="it is not installed")


def run(command):
    subprocess.run(command, shell=True, check=True)


@pytest.fixture(autouse=True)
def files(monkeypatch, arena):
    Path("seed.sql").write_text(f"{INSERT};")
    Path("services.conf").write_text("[dev]\nhost=db.example.org\ndbname=shop\n")
    for name in ("my.cnf", ".my.cnf"):
        Path(name).write_text("[client]\nhost=db.example.org\nuser=me\ndatabase=shop\n")
    monkeypatch.setenv("SQL", INSERT)
    monkeypatch.setenv("FILE", arena.url.partition(":///")[2])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_shell(test_client, command):
    run(command)
    assert test_client.get("/orders").json() == ["psql"]


@pytest.mark.parametrize("env", [None, {}, {"PATH": os.defpath}])
def test_a_client_of_a_script_and_a_program(test_client, env):
    script = f"export SQL={INSERT!r} FILE={os.environ['FILE']}\n{COMMANDS[0]}\n"
    Path("client.sh").write_text(script)
    code = "import os, sys; sys.exit(os.system('sh client.sh'))"
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert test_client.get("/orders").json() == ["psql"]


REFUSED = {
    "sqlite": [
        "sqlite3 shop.db .tables",
        "echo sqlite3 sh$NONE''op.db | sh",
        f"""{sys.executable} -c "import sqlite3; sqlite3.Connection('sh' + 'op.db')" """,
        "rm -rf .",
    ],
    "postgresql": [
        "createdb shop_dev",
        "dropdb --if-exists shop_dev",
        "psql -c 'DROP DATABASE shop_dev'",
        "psql -Xqc'DROP DATABASE shop_dev'",
        "psql --command='ALTER DATABASE shop_dev RENAME TO other'",
        "pg_restore -cCd postgres dump",
        "pg_restore --create -d postgres dump",
        "su postgres -c 'psql shop_dev -c \"DELETE FROM orders\"'",
        r"psql -c '\c shop_dev' -c 'DROP TABLE orders'",
        "psql -dshop_dev -- ",
    ],
    "mysql": ["mysql -Dshop_dev --"],
}


@pytest.mark.parametrize("command", REFUSED[PRODUCT])
def test_a_command_that_reaches_further(arena, command):
    with arena.expect_refusal():
        run(command)


@pytest.mark.parametrize("command", ["{}", "sh -c '{} --help'", "env X=1 {}"])
def test_a_client_by_its_path(arena, command):
    path = shutil.which(CLIENT, path=PATH)
    with arena.expect_refusal() as refused:
        run(command.format(path))
    assert path in refused.error.what


@pytest.mark.parametrize("name", [CLIENT, "mysqlsh"])
def test_it_is_found_if_it_is_installed(name):
    found = shutil.which(name)
    assert (found is None) == (shutil.which(name, path=PATH) is None)
    assert found is None or subprocess.check_output([found, "--version"])
