"""A rollback at the end of each unit of work does not hide a commit that the app forgot."""

import pytest
import units

WAYS = [
    *("by_a_unit", "by_a_context_manager", "by_finally", "by_a_transaction"),
    *("by_a_savepoint", "by_an_open_savepoint", "by_a_connection", "by_one_session"),
]
PATHS = [f"/work/{way}/executed" for way in ("by_a_context_manager", "by_an_open_savepoint")]
for name in ("executed", "flushed", "added"):
    PATHS += [f"/work/by_a_unit/{name}", f"/dependency/{name}"]
PATHS += ["/dependency/recovered", "/work/by_one_session/flushed", "/work/by_one_session/added"]
DROPPED = "/work/by_a_dropped_session/flushed"


@pytest.fixture
def arena_app():
    return units.app


@pytest.mark.parametrize("path", [DROPPED, *PATHS])
@pytest.mark.expect("LostWriteWarning", at="# lost")
async def test_a_forgotten_commit(client, path):
    assert (await client.post(f"{path}/201")).status_code == 201
    assert (await client.get("/orders")).json() == []


@pytest.mark.parametrize("path", [DROPPED, *PATHS])
@pytest.mark.expect("LostWriteWarning", at="# lost")
def test_a_forgotten_commit_by_a_sync_client(test_client, path):
    assert test_client.post(f"{path}/201").status_code == 201


@pytest.mark.expect("LostWriteWarning")
async def test_a_change_that_one_session_keeps(client):
    await client.post("/work/by_one_session/changed/200")


@pytest.mark.parametrize("path", PATHS[:-1])  # the next commit would write the last one
async def test_an_answer_that_refuses(client, path):
    assert (await client.post(f"{path}/409")).status_code == 409


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["committed", "missed", "tried", "raised", "caught"])
async def test_what_is_not_lost(client, way, name):
    if way == "by_a_savepoint" and name != "raised":
        pytest.skip("the savepoint has ended")
    await client.post(f"/work/{way}/{name}/200")


async def test_a_commit_by_a_later_request(client):
    await client.post("/work/by_one_session/flushed/200")
    await client.post("/work/by_one_session/committed/200")
    assert (await client.get("/orders")).json() == ["vase", "vase"]


@pytest.mark.parametrize("name", ["committed", "tried", "raised", "caught", "failed"])
async def test_what_is_not_lost_in_a_dependency(client, name):
    await client.post(f"/dependency/{name}/200")


async def test_a_unit_of_work_that_the_test_writes_in():
    async with units.Unit() as unit:
        unit.session.add(units.Order(item="vase"))
        await unit.session.flush()
