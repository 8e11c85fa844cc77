"""The instances that `db_session` has in the tear-down of a fixture."""

import pytest
from sqlalchemy import select
from team_app import Member, Tag, Team, User


@pytest.fixture
async def team(db_session):
    team = Team(name="Dune")
    db_session.add(team)
    await db_session.commit()
    yield team
    assert team in db_session
    await db_session.refresh(team)
    assert team.name == "Ruby"
    await db_session.delete(team)
    await db_session.commit()


async def test_a_fixture_deletes_what_the_app_has_changed(team, client):
    assert (await client.put(f"/teams/{team.id}/Ruby")).status_code == 200


async def test_a_fixture_does_not_see_what_the_test_has_not_committed(team, client, db_session):
    await client.put(f"/teams/{team.id}/Ruby")
    team.name = "Lost"
    db_session.add(Team(name="Lost"))


@pytest.fixture
async def bare_team(db_session):
    team = Team(tags=[])
    db_session.add(team)
    await db_session.commit()
    yield team
    await db_session.refresh(team)
    await db_session.commit()
    assert (await db_session.scalars(select(Tag))).all() == []


async def test_a_fixture_does_not_write_what_the_test_has_left_beside_it(bare_team):
    bare_team.tags.append(Tag())


@pytest.fixture
def sync_team(db_session):
    team = Team(name="Dune")
    db_session.add(team)
    db_session.commit()
    yield team
    db_session.refresh(team)
    assert team.name == "Ruby"
    db_session.delete(team)
    db_session.commit()


def test_a_sync_fixture_deletes_what_the_app_has_changed(sync_team, test_client):
    assert test_client.put(f"/teams/{sync_team.id}/Ruby").status_code == 200


async def test_a_deleted_instance_may_be_in_a_loaded_collection(db_session):
    member = Member(role="new", team=Team(), user=User())
    db_session.add(member)
    await db_session.commit()
    assert member in await db_session.run_sync(lambda _: member.team.members)
    await db_session.delete(member)
    await db_session.commit()
    assert (await db_session.scalars(select(Member))).all() == []


@pytest.fixture(scope="module")
def held(arena):
    with arena.session() as session:
        session.connection()
        yield session


def test_a_commit_of_a_transaction_that_the_module_has_begun(held):
    held.add(Team(name="Desk"))
    held.commit()


def test_its_row_is_undone(test_client):
    assert test_client.get("/teams").json() == ["Sand"]
