"""`arena.process`: another program on the test's database, which ends with its owner."""

import signal
import sys

import pytest
from models import Order
from sqlalchemy import select

WORKER = [sys.executable, "worker.py"]


def test_a_worker(arena, db_session, turn):
    worker = arena.process(WORKER, ready="ready")
    db_session.add(Order(item="vase", status="paid"))
    db_session.commit()
    while "shipped" not in worker.output:
        assert worker.status is None
    assert db_session.scalars(select(Order.status)).all() == ["shipped"]


async def test_a_block(arena, client):
    with arena.process(WORKER, ready="ready") as worker:
        assert (await client.get("/orders")).json() == []
    assert worker.status == -signal.SIGTERM


@pytest.fixture(scope="module")
def wide_worker(arena):
    return arena.process(WORKER, ready=lambda: True)


def test_a_worker_of_a_module(wide_worker, turn):
    assert wide_worker.status is None


def test_a_program_that_ends_by_itself(arena):
    job = arena.process([sys.executable, "-c", "raise SystemExit(3)"])
    assert job.wait() == 3
    assert job.status == 3


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "os.kill(os.getpid(), 9)"])
@pytest.mark.expect("A101")
def test_a_program_that_dies_unnoticed(arena, end, tmp_path):
    code = f"import os; print('ready', flush=True)\nwhile not os.path.exists('end'): 0\n{end}"
    process = arena.process([sys.executable, "-c", code], ready="ready", cwd=tmp_path)
    assert process.status is None
    (tmp_path / "end").touch()
    process.wait()


@pytest.fixture(scope="class")
def wide_program(arena):
    return arena.process([sys.executable, "-c", "raise SystemExit(3)"], ready=lambda: True)


class TestWide:
    @pytest.mark.expect("A101")
    def test_a_program_of_a_class_that_dies(self, wide_program):
        wide_program.wait()


def test_each_url_keeps_its_driver(arena):
    code = "import os, sqlalchemy; sqlalchemy.create_engine(os.environ['SYNC_URL']).connect()"
    assert arena.process([sys.executable, "-c", code]).wait() == 0


@pytest.mark.parametrize(
    "command, patience", [([sys.executable, "-c", "raise SystemExit('no')"], 10), (WORKER, 0.1)]
)
@pytest.mark.expect("A101")
def test_a_program_that_is_never_ready(arena, command, patience):
    arena.process(command, ready="steady", patience=patience)


@pytest.mark.expect("FileNotFoundError")
def test_no_such_program(arena):
    arena.process(["no-such-program"])
