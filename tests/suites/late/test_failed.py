"""Work that a request began, and that fails after the answer, is a warning with the app's line."""

import asyncio
import threading

import httpx2
import pytest
from async_app import maker
from fastapi import BackgroundTasks
from fastapi.testclient import TestClient
from late_app import TASKS, app
from models import Order

fails = pytest.mark.expect("LateWorkWarning", at="raise LookupError")


async def fail_later():
    await asyncio.sleep(0.01)
    raise LookupError("no such mail")


@app.post("/fails", status_code=202)
async def begin_to_fail():
    task = asyncio.create_task(fail_later())
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


async def fail_in_the_database():
    async with maker.begin() as session:
        session.add(Order(item=None))


@app.post("/database-fails", status_code=202)
async def begin_to_fail_in_the_database():
    asyncio.create_task(fail_in_the_database())  # noqa: RUF006 - the app forgets it


async def fail_in_a_cycle():
    task = asyncio.current_task()
    raise LookupError(f"no such mail for {task.get_name()}")


@app.post("/cycle-fails", status_code=202)
async def begin_to_fail_in_a_cycle():
    asyncio.create_task(fail_in_a_cycle())  # noqa: RUF006 - the app forgets it


@app.post("/kept-fails", status_code=202)
async def begin_to_fail_and_keep_the_task():
    app.state.kept = asyncio.create_task(fail_later())


@app.post("/background-fails", status_code=202)
async def add_background_task(tasks: BackgroundTasks):
    tasks.add_task(fail_later)


def fail_in_a_timer():
    raise LookupError("in a timer")


@app.post("/timer-fails", status_code=202)
def begin_a_timer_that_fails():
    threading.Timer(0.1, fail_in_a_timer).start()


@app.post("/retrieved", status_code=202)
async def retrieve():
    task = asyncio.create_task(fail_later())
    TASKS.add(task)
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.expect("LateWorkWarning", at="async with maker.begin() as session:")
async def test_a_statement_of_a_task(client):
    await client.post("/database-fails")


@fails
@pytest.mark.parametrize("path", ["/fails", "/cycle-fails", "/kept-fails"])
async def test_a_task_whether_python_frees_it_or_not(client, path):
    await client.post(path)


@fails
def test_a_task_of_a_sync_test(test_client):
    test_client.post("/fails")


@pytest.mark.expect("PytestUnhandledThreadExceptionWarning", at=None)
def test_a_timer_that_fails_after_the_test(test_client):
    test_client.post("/timer-fails")


@pytest.mark.expect("LateWorkWarning")
def test_a_background_task_of_the_live_server(live_server):
    httpx2.post(f"{live_server.url}/background-fails")


@pytest.mark.expect("LateWorkWarning")
def test_a_background_task_of_a_client_that_raises_no_errors():
    TestClient(app, raise_server_exceptions=False).post("/background-fails")


async def test_an_error_that_the_test_expects(client):
    with pytest.raises(LookupError):
        await client.post("/background-fails")


async def test_an_error_that_the_app_retrieves(client):
    await client.post("/retrieved")
