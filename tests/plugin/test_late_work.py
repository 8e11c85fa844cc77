"""Work that goes on after its request was answered: waited for, or named and cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

LATE = """
import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
from sqlalchemy import create_engine, text

from app import Dancer, app, maker

GATE = threading.Event()  # opened by a test
TASKS = set()
TIMERS = []
POOL = ThreadPoolExecutor(1)
sync_engine = create_engine("SYNC_URL")


async def add(name):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()


def add_in_a_thread(name):
    with sync_engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES (:name)"), {"name": name})


async def slowly(name):
    await asyncio.sleep(0.02)
    TASKS.add(asyncio.create_task(add(name)))  # and that begins another one


def after_the_gate(name):
    GATE.wait(60)
    add_in_a_thread(name)


def raw_after_the_gate(url):
    GATE.wait(60)
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.partition("///")[2])
    else:
        connection = psycopg.connect(url.replace("+asyncpg", ""))
    connection.execute("INSERT INTO dancers (name) VALUES ('Raw')")
    connection.commit()


def that_begins_another(name):
    GATE.wait(60)
    POOL.submit(add_in_a_thread, name)


async def task_after_the_gate(name):
    await asyncio.to_thread(GATE.wait, 60)
    await add(name)


async def for_ever():
    await asyncio.Event().wait()


@app.post("/task/{name}", status_code=202)
async def task(name: str):
    TASKS.add(asyncio.create_task(slowly(name)))


@app.post("/raw", status_code=202)
async def raw(url: str):
    threading.Thread(target=raw_after_the_gate, args=(url,)).start()


@app.post("/thread/{name}", status_code=202)
async def thread(name: str):
    threading.Thread(target=add_in_a_thread, args=(name,)).start()


@app.post("/executor/{name}", status_code=202)
async def executor(name: str):
    asyncio.get_running_loop().run_in_executor(None, add_in_a_thread, name)


@app.post("/gate/{name}", status_code=202)
async def gate(name: str):
    threading.Thread(target=after_the_gate, args=(name,), daemon=True).start()


@app.post("/timer/{name}", status_code=202)
def timer(name: str, seconds: float = 0.02):
    TIMERS.append(threading.Timer(seconds, add_in_a_thread, (name,)))
    TIMERS[-1].start()


@app.post("/timer_after_the_gate/{name}", status_code=202)
async def timer_after_the_gate(name: str):
    threading.Timer(0, after_the_gate, (name,)).start()


@app.post("/jobs/{name}", status_code=202)
def jobs(name: str):
    POOL.submit(int)
    POOL.submit(add_in_a_thread, name)


@app.post("/jobs_after_the_gate/{name}", status_code=202)
def jobs_after_the_gate(name: str):
    POOL.submit(that_begins_another, name)
    for _ in range(3):
        POOL.submit(after_the_gate, name)


@app.post("/running_job/{name}", status_code=202)
async def running_job(name: str):
    asyncio.get_running_loop().run_in_executor(POOL, after_the_gate, name)


@app.post("/task_after_the_gate/{name}", status_code=202)
async def begin_task_after_the_gate(name: str):
    TASKS.add(asyncio.create_task(task_after_the_gate(name)))


@app.post("/endless", status_code=202)
async def endless():
    TASKS.add(asyncio.create_task(for_ever()))
"""

SETTLED = """
import pytest
from pytest_arena.errors import LateWorkError

WAYS = ("task", "thread", "executor", "timer", "jobs")


@pytest.mark.parametrize("turn", range(2))
@pytest.mark.parametrize("way", WAYS)
async def test_async(arena, client, way, turn):
    assert (await client.post(f"/{way}/Late")).status_code == 202
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


@pytest.mark.parametrize("way", WAYS)
def test_sync(arena, test_client, way):
    assert test_client.post(f"/{way}/Late").status_code == 202
    arena.settled()
    assert test_client.get("/dancers").json() == ["Sand", "Late"]


async def test_nothing_to_wait_for(arena, client):
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_it_goes_on(arena, client):
    await client.post("/endless")
    with pytest.raises(LateWorkError, match="a request had begun still runs after 0.1 s") as told:
        await arena.settled(0.1)
    assert "late.py" in told.value.cause
"""

UNSETTLED = """
import pytest
from pytest_arena.errors import LateWorkError


@pytest.mark.parametrize("way", ["task", "thread", "executor"])
async def test_does_not_ask(client, way):
    await client.post(f"/{way}/Late")


@pytest.mark.parametrize("way", ["task", "thread", "executor"])
def test_does_not_ask_either(test_client, way):
    test_client.post(f"/{way}/Late")


async def test_nothing_has_come_here(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

TEARDOWN = """
import pytest


@pytest.fixture
def cleans_up(test_client):
    yield
    test_client.post("/gate/Ghost")


def test_whose_fixture_asks_last(cleans_up, test_client):
    assert test_client.get("/dancers").json() == ["Sand"]


@pytest.fixture
async def acleans_up(client):
    yield
    await client.post("/gate/Ghost")


async def test_whose_async_fixture_asks_last(acleans_up, client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

CUT_OFF = """
import pytest
import late


@pytest.mark.parametrize("turn", range(3))
async def test_leaves_a_task(client, turn):
    await client.post("/endless")


async def test_leaves_a_thread(client):
    await client.post("/gate/Ghost")


async def test_leaves_a_raw_one(arena, client):
    await client.post("/raw", params={"url": arena.url})


async def test_the_next_one(client):
    threads = [one for one in late.threading.enumerate() if "after_the_gate" in one.name]
    late.GATE.set()
    for thread in threads:
        thread.join(10)
    assert threads
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

WAITING = """
import pytest
import late


async def test_leaves(client):
    await client.post("/timer/Ghost?seconds=600")


def test_leaves_it_too(test_client):
    test_client.post("/timer/Ghost?seconds=600")


def test_none_is_waiting():
    assert [timer.finished.is_set() for timer in late.TIMERS] == [True, True]
"""

QUEUED = """
import pytest
import late

WAYS = ("jobs_after_the_gate", "running_job", "timer_after_the_gate")


@pytest.mark.parametrize("way", WAYS)
async def test_leaves(client, way):
    await client.post(f"/{way}/Ghost")


@pytest.mark.parametrize("way", WAYS)
def test_leaves_it_too(test_client, way):
    test_client.post(f"/{way}/Ghost")


def test_that_fails(test_client):
    test_client.post("/jobs_after_the_gate/Ghost")
    raise ZeroDivisionError


async def test_the_next_one(arena, client):
    threads = [one for one in late.threading.enumerate() if isinstance(one, late.threading.Timer)]
    late.GATE.set()
    for thread in threads:
        thread.join(10)
    for _ in range(2):  # what the jobs of those before have put there comes in between
        late.POOL.submit(int).result(10)
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post("/jobs/Late")  # the same thread, for this test
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]
"""

WIDE = """
import pytest
from starlette.testclient import TestClient
import late


@pytest.fixture(scope="module")
def own():
    with TestClient(late.app) as own:
        yield own


def test_leaves_a_task(own):
    own.post("/task_after_the_gate/Ghost")


def test_the_next_one(own):
    own.portal.call(late.GATE.set)
    own.portal.call(late.asyncio.wait, late.TASKS)
    assert own.get("/dancers").json() == ["Sand"]
"""

KEPT_RUNNER = """
import asyncio
import pytest
from app import Dancer, maker
from pytest_arena.errors import LateWorkError

RUNNER = asyncio.Runner()


async def add(name, go=None):
    if go is not None:
        await go.wait()
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()


@pytest.mark.parametrize("name", ["Ghost", "Second", "Third"])
def test_uses_the_runner(name):
    RUNNER.run(add(name))


LEFT = []


def test_leaves_a_task():
    async def begin():
        go = asyncio.Event()
        LEFT.extend([go, asyncio.create_task(add("Late", go))])

    RUNNER.run(begin())


def test_the_task_of_the_test_before():
    async def release():
        LEFT[0].set()
        await LEFT[1]

    with pytest.raises(LateWorkError, match="an earlier test had begun"):
        RUNNER.run(release())
    RUNNER.close()
"""

FAILED = """
import threading
import pytest
import late

BEGUN, MAY_END, DONE = threading.Event(), threading.Event(), []


def wait():
    BEGUN.set()
    return MAY_END.wait(60)


def work():
    with late.sync_engine.connect() as connection:
        connection.connection.driver_connection.create_function("wait", 0, wait)
        DONE.append(connection.scalar(late.text("SELECT wait() + count(*) FROM dancers")))


@late.app.post("/work", status_code=202)
def begin():
    late.POOL.submit(work)


@pytest.fixture
def own(test_client):
    \"\"\"It waits for what the app does, as some frameworks' clients do.\"\"\"
    yield test_client
    MAY_END.set()
    late.POOL.submit(int).result(10)


def test_fails(own):
    own.post("/work")
    assert BEGUN.wait(10)
    ENDS


def test_what_the_app_has_done():
    assert DONE == [2]
"""


RED = """
import pytest
import late
from pytest_arena.errors import LateWorkError


@pytest.fixture(autouse=True)
def opens_the_gate():
    late.GATE.clear()
    yield
    late.GATE.set()


@pytest.mark.parametrize("way", ["endless", "gate/Late", "jobs_after_the_gate/Late"])
async def test_async(client, way):
    assert (await client.post(f"/{way}")).status_code == 202
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


def test_sync(test_client):
    assert test_client.post("/gate/Late").status_code == 202
    assert test_client.get("/dancers").json() == ["Sand", "Late"]


async def test_settled(arena, client):
    assert (await client.post("/task/Late")).status_code == 202
    await arena.settled()
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_settled_too_early(arena, client):
    await arena.settled()
    assert (await client.post("/endless")).status_code == 202
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


async def test_settled_in_vain(arena, client):
    assert (await client.post("/endless")).status_code == 202
    with pytest.raises(LateWorkError):
        await arena.settled(0)
    assert (await client.get("/dancers")).json() == ["Sand", "Late"]


async def test_none(client):
    assert (await client.get("/dancers")).json() == ["Late"]
"""


def late_app(example: Example, how: str, **files: str) -> Example:
    """An app that goes on after it has answered."""
    if how == "copy":
        url, found = "sqlite:///dev.db", example.with_files(**files)
    else:
        url, found = "postgresql+psycopg://me@db.example.org/shop", on_postgresql(example, **files)
    late = found.change("pytest.ini", "app:app", "late:app")
    return late.with_files(late=LATE.replace("SYNC_URL", url))


EACH = pytest.mark.parametrize(
    "how",
    [
        "copy",
        pytest.param("undo", marks=pytest.mark.slow),
        pytest.param("clone", marks=pytest.mark.slow),
    ],
)


@pytest.mark.slow
def test_a_failed_test_names_the_work_that_still_runs(example: Example) -> None:
    """Where that stands, and how to wait for it; nothing where all is done."""
    run = late_app(example, "copy", test_late=RED).run("-W", "ignore", "-oarena_settle=0")
    assert (run.status, run.outcomes["failed"]) == (1, 8), run.output
    told = "not finished when the test failed"
    assert run.output.count(told) == 5, run.output
    run.says(
        f"{told} a request began work that still ran: ", "late.py:61 await asyncio.Event().wait()"
    )
    run.says("late.py:36 GATE.wait(60)", "late.py:110 POOL.submit(after_the_gate, name)")
    run.says("next: await arena.settled() before the test checks the result")
    run.says("next: arena.settled() before the test checks the result")


@pytest.mark.slow
@EACH
def test_settled_waits_for_all_that_requests_have_begun(example: Example, how: str) -> None:
    """In tasks, threads and executors, in async tests and sync ones."""
    run = late_app(example, how, test_late=SETTLED).run(*isolation(how))
    run.expect(passed=17).says("cut off").never_says("refused")


@EACH
def test_the_end_of_a_test_waits_for_a_while(example: Example, how: str) -> None:
    """What is done by then is told nobody; nothing comes into the next test."""
    project = late_app(example, how, test_late=UNSETTLED)
    run = project.run("-oarena_settle=30", *isolation(how))  # a busy machine takes its time
    run.expect(passed=7).never_says("cut off")


@pytest.mark.slow
@EACH
def test_what_goes_on_is_cut_off_and_named_once(example: Example, how: str) -> None:
    """A thread cannot be ended: its next connection is refused, as its test is over."""
    project = late_app(example, how, test_late=CUT_OFF)
    options = (*isolation(how), "-W", "ignore::pytest.PytestUnhandledThreadExceptionWarning", "-q")
    run = project.run("-oarena_settle=0.2", *options).expect(passed=6)
    run.says("test_leaves_a_task[0]", "was cut off cause: late.py:61 await asyncio")
    run.says("test_leaves_a_thread", "was cut off cause: late.py:36 GATE.wait(60)")
    run.says("test_leaves_a_raw_one", "was cut off cause: late.py:41 GATE.wait(60)")
    run.says("arena: refused: a connection for work that a request of an earlier test had begun: ")
    run.says("late.py:26 with sync_engine.begin()", ".connect(url")
    assert run.output.count("was cut off") == 3


@EACH
def test_what_waits_for_its_time_is_named_and_cancelled(example: Example, how: str) -> None:
    """Nothing of it is on any stack."""
    project = late_app(example, how, test_late=WAITING)
    run = project.run(
        *isolation(how), "-oarena_settle=0.1", "-Werror::pytest_arena.LateWorkWarning"
    )
    run.expect(1, passed=3, errors=2)
    run.says("late.py:92  TIMERS[-1].start()", "teardown of test_leaves_it_too")


@pytest.mark.slow
@EACH
def test_a_job_is_its_tests_whichever_thread_does_it(example: Example, how: str) -> None:
    """Those that nobody has begun are cancelled; a thread that goes on may do the next test's."""
    project = late_app(example, how, test_late=QUEUED)
    options = (*isolation(how), "-W", "ignore::pytest.PytestUnhandledThreadExceptionWarning")
    run = project.run("-oarena_settle=0.1", *options).expect(1, passed=7, failed=1)
    run.says("work that a request had begun was cut off", "POOL.submit(after_the_gate, name)")
    run.says("refused: a connection for work that a request of an earlier test had begun: ")


@pytest.mark.slow
def test_a_task_in_a_loop_that_goes_on_is_refused(example: Example) -> None:
    """Of a client that the reader has made, and keeps."""
    run = late_app(example, "copy", test_late=WIDE).run("-oarena_settle=0.1").expect(passed=2)
    run.says("test_leaves_a_task", "refused: a connection for work")


@pytest.mark.slow
def test_a_runner_of_the_suite_serves_each_test(example: Example) -> None:
    """It keeps a copy of the first test's context; a task that a test left in it is late."""
    run = example.with_files(test_runner=KEPT_RUNNER).run().expect(passed=5)
    run.says("refused: a connection for a thread, a job or a task that an earlier test had begun")


@pytest.mark.slow
def test_what_a_fixtures_tear_down_has_begun_counts(example: Example) -> None:
    """It is the test's, whose coroutine has ended by then."""
    project = late_app(example, "copy", test_late=TEARDOWN)
    run = project.run("-Werror::pytest_arena.LateWorkWarning", "-oarena_settle=0.1").expect(
        1, passed=2, errors=2
    )
    run.says("teardown of test_whose_fixture_asks_last", "late.py:36  GATE.wait(60)")
    run.says("teardown of test_whose_async_fixture_asks_last")


@pytest.mark.parametrize(
    "ends",
    [
        "assert BEGUN is None",
        *(
            pytest.param(ends, marks=pytest.mark.slow)
            for ends in ("pytest.fail('so')", "pytest.skip('so')")
        ),
    ],
)
def test_a_test_that_ends_itself_breaks_no_statement_of_the_app_off(
    example: Example, ends: str
) -> None:
    """Its fixtures may wait for that; only who breaks a test off from outside ends it."""
    run = late_app(example, "copy", test_late=FAILED.replace("ENDS", ends)).run()
    run.says("1 passed").never_says("interrupted")


@pytest.mark.parametrize("text", ["soon", "-1", "inf"])
def test_a_bound_that_is_no_number_of_seconds(example: Example, text: str) -> None:
    """Refused before any test."""
    run = example.run(f"-oarena_settle={text}")
    run.says("arena_settle = ", "not a number of seconds", "[A101]")
    assert run.status == 4


def isolation(how: str) -> tuple[str, ...]:
    """The option, where it is not what the product has by itself."""
    return ("--arena-isolation=clone",) if how == "clone" else ()


STACKS = """
import gc
import threading
from pytest_arena._run.leaks._late_work import _threads_of_others, threads_at_work

class Kept:
    pass

def leave():
    kept = Kept()
    kept.itself, kept.own = kept, threading.local()
    kept.own.name = "kept"

def look(parse_project, depth):
    return look(parse_project, depth - 1) if depth else parse_project()

gc.disable()
gc.set_threshold(1)
for turn in range(300):
    leave()
    free = [{} for _ in range(40)]  # so that it is not a dictionary that begins a collection
    del free
    gc.enable()
    look((threads_at_work, _threads_of_others)[turn % 2], turn % 5)
    assert gc.isenabled()
    gc.disable()
    look(threads_at_work, 0)
    assert not gc.isenabled()
print("looked")
"""


def test_the_collector_may_run_while_stacks_are_looked_at(example: Example) -> None:
    """Python 3.11 waited for itself, for good, where a `threading.local` was garbage."""
    example.with_files(stacks=STACKS).python("stacks.py").says("looked")


CHAINS = """
import asyncio
import threading
from contextlib import asynccontextmanager

from fastapi import FastAPI

ENDED = []
TASKS = set()


async def send():
    await asyncio.sleep(0.01)
    ENDED.append("sent")


def start(*_):
    TASKS.add(asyncio.get_running_loop().create_task(send()))


@asynccontextmanager
async def lifespan(app):
    async def relay():
        woken = asyncio.Event()
        while True:
            await asyncio.wait_for(woken.wait(), 600)

    task = asyncio.create_task(relay())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/{how}")
async def begin(how: str):
    loop = asyncio.get_running_loop()
    match how:
        case "soon":
            loop.call_soon(start)
        case "twice":
            loop.call_soon(loop.call_soon, start)
        case "threadsafe":
            loop.call_soon_threadsafe(start)
        case "coroutine":
            asyncio.run_coroutine_threadsafe(send(), loop)
        case "callback":
            future = loop.create_future()
            future.add_done_callback(start)
            future.set_result(None)
        case "chain":
            loop.create_task(asyncio.sleep(0.01)).add_done_callback(start)
"""
CHAINED = """
import pytest
from app import ENDED

HOWS = ("soon", "twice", "threadsafe", "coroutine", "callback", "chain")


@pytest.mark.parametrize("how", HOWS)
async def test_async(client, how):
    assert (await client.post(f"/{how}")).status_code == 200


@pytest.mark.parametrize("how", HOWS)
def test_sync(test_client, how):
    assert test_client.post(f"/{how}").status_code == 200


def test_all_have_ended():
    assert ENDED == ["sent"] * 2 * len(HOWS)
"""


@pytest.mark.slow
def test_what_a_callback_of_the_loop_begins_is_waited_for(example: Example) -> None:
    """At the end of a test. A relay of the lifespan is not, whose request wakes nothing."""
    project = example.with_files(app=CHAINS, test_late=CHAINED)
    for line in ("arena_schema = app:Base\n", "arena_seed = seed:seed\n"):
        project = project.change("pytest.ini", line, "")
    project.run("-p", "no:randomly", "-Werror::pytest_arena.LateWorkWarning").expect(passed=13)


UNDER_ANYIO = """
import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def logged_in(client):
    await client.get("/dancers")
    return client


@pytest.mark.anyio
@pytest.mark.parametrize("turn", range(2))
async def test_it(logged_in, turn):
    assert (await logged_in.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_the_runner_of_anyio_is_no_work_of_a_request(example: Example) -> None:
    """It waits in a task for each async fixture, which is newer than the fixture's request."""
    project = example.with_files(test_it=UNDER_ANYIO)
    project = project.change("pytest.ini", "asyncio_mode = auto\n", "asyncio_mode = strict\n")
    run = project.run("-p", "anyio", "-Werror::pytest_arena.LateWorkWarning").expect(passed=2)
    run.never_says("cut off")
