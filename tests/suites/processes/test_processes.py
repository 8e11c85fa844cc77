"""Another process works on the test's database, and its changes are restored."""

import fcntl
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import jobs
import pytest
from sqlalchemy import create_engine
from models import sync_url

engine = create_engine(sync_url(str(jobs.engine.url)))
unused = create_engine("sqlite:///unused.db")


def insert():
    with engine.begin() as connection:
        connection.execute(jobs.INSERT)


def run(how, *call):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how)) as pool:
        return pool.submit(*call).result()


def forked_pool():
    pool = multiprocessing.get_context("fork").Pool(1)
    pool.apply(int)
    return pool


EARLY = forked_pool()


# The first tests: a fork fills all databases.
def test_a_command_on_a_database_that_no_test_has_used(arena):
    code = "import sqlite3; sqlite3.connect('un' + 'used.db')"
    with arena.expect_refusal() as refused:
        subprocess.run([sys.executable, "-c", code], check=False)
    assert "unused.db" in refused.error.what


def test_a_program_on_a_database_that_no_test_has_used(arena):
    link = "import os, sqlite3; os.symlink('un' + 'used.db', 'link'); "
    code = link + "sqlite3.connect('link').execute('DELETE FROM orders')"
    assert arena.process([sys.executable, "-c", code]).wait() == 0


@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_of_multiprocessing(test_client, how):
    run(how, jobs.add)
    assert test_client.get("/orders").json() == ["vase"]


def test_the_children_of_a_program_end_with_it(arena, tmp_path):
    code = (
        "import fcntl, os, time; file = open('lock', 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "os.fork() and print('ready', flush=True); time.sleep(600)"
    )
    with arena.process([sys.executable, "-c", code], ready="ready", cwd=tmp_path):
        pass
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_without_a_database():
    assert run("spawn", abs, -1) == 1


@pytest.fixture(scope="session")
def forked():
    with forked_pool() as pool:
        yield pool


def test_a_fork_of_a_fixture(forked, test_client, turn):
    forked.apply(insert)
    assert test_client.get("/orders").json() == ["vase"]


def test_a_fork_of_a_time_before_any_test(arena):
    with arena.expect_refusal() as refused:
        EARLY.apply(insert)
    assert "forked before" in refused.error.what


def test_a_refusal_in_a_fork_that_expects_it(arena):
    def connect():
        with arena.expect_refusal():
            create_engine("mysql+pymysql://elsewhere/other").connect()

    process = multiprocessing.get_context("fork").Process(target=connect)
    with arena.expect_refusal():
        process.start()
        process.join(10)
        status = process.exitcode
        process.kill()
    assert status == 0


def test_it_has_written_nothing(test_client):
    assert test_client.get("/orders").json() == []
    EARLY.terminate()


def test_a_fork_is_the_first_to_connect(test_client):
    process = multiprocessing.get_context("fork").Process(target=insert)
    process.start()
    process.join()
    assert test_client.get("/orders").json() == ["vase"]


@pytest.mark.skipif(engine.dialect.name != "sqlite", reason="on a server the test comes first")
def test_a_command_is_the_first_to_connect():
    assert subprocess.check_output([sys.executable, "sells.py"], text=True) == "['chair', 'lamp']\n"


def test_a_command_with_the_tests_url(arena, test_client):
    sold = subprocess.check_output([sys.executable, "sells.py", arena.url], text=True)
    assert sold == "['chair', 'lamp']\n"
    assert test_client.post("/orders/chair").status_code == 404


@pytest.fixture(scope="session")
def elsewhere():
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "jobs.py"], stdin=pipe, stdout=pipe, text=True)

    def ask(*words):
        print(*words, file=process.stdin, flush=True)
        return process.stdout.readline().strip()

    yield ask
    process.communicate()


def test_only_a_worker_uses_the_database(arena, elsewhere, turn):
    assert elsewhere("items_by_url", arena.url) == "[]"
    elsewhere("add_by_url", arena.url)
    assert elsewhere("items_by_url", arena.url) == "['vase']"


URLS = []


def test_the_url_is_given_to_a_worker(arena):
    URLS.append(arena.url)


def test_which_writes_later(elsewhere):
    elsewhere("add_by_url", URLS[0])
    assert elsewhere("items_by_url", URLS[0]) == "['vase']"


def test_and_it_is_restored(test_client):
    assert test_client.get("/orders").json() == []
