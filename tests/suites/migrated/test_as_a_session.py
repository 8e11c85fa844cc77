"""`db_session` loads, keeps and expires as a session of the app does, until another one commits."""

import re
from inspect import isawaitable

import pytest
from sqlalchemy import create_engine, event, select
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, defer, joinedload, load_only, raiseload, selectinload
from sqlalchemy.orm import subqueryload as subquery
from team_app import Member, Tag, Team, User, engine

sync_engine = create_engine(engine.url.set(drivername="postgresql+psycopg"))
LOADS = {
    "lazy": [],
    "selectin": [selectinload(Team.members), selectinload(Team.tags)],
    "subquery": [subquery(Team.members).subqueryload(Member.user), subquery(Team.tags)],
    "joined": [joinedload(Team.members).joinedload(Member.user), selectinload(Team.tags)],
    "raise": [raiseload(Team.tags), selectinload(Team.members).raiseload("*")],
    "only": [load_only(Team.id), selectinload(Team.members), joinedload(Team.tags)],
    "defer": [defer(Team.name), selectinload(Team.members)],
}
loads = pytest.mark.parametrize("options", LOADS.values(), ids=LOADS)


async def call(function, *args, **options):
    found = function(*args, **options)
    return await found if isawaitable(found) else found


async def outcomes(db, options):
    """Return the statements, and after each step the instances and what one reads."""
    found = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(connection, cursor, statement, *_):
        found.append(re.sub(r"\$\d+|%\(\w+\)s", "?", statement))  # of each driver

    def look(team):
        found.extend(sorted([type(each).__name__, *sorted(vars(each))] for each in db))
        for key in ("name", "tags", "members"):
            try:
                found.append(str(vars(getattr(team, key)[0]).keys()))
            except Exception as error:
                found.append(type(error).__name__)

    teams = select(Team).order_by(Team.id)
    team = (await call(db.scalars, teams.options(*options))).first()
    for step in (
        lambda: db.scalars(teams),
        lambda: db.get(Team, team.id),
        lambda: db.refresh(team, ["name"]),
        lambda: db.scalars(teams.execution_options(populate_existing=True)),
        lambda: db.scalars(select(Member)),
        lambda: db.add(Tag(team_id=1)) or db.flush(),
        lambda: db.scalars(teams.options(selectinload(Team.tags))),
        db.commit,
        lambda: db.scalars(teams),
        lambda: db.refresh(team),
        lambda: db.expire(team, ["name", "tags"]),
        lambda: db.scalars(teams.options(selectinload(Team.tags))),
        db.rollback,
        lambda: db.scalars(teams),
        db.expunge_all,
        lambda: db.scalars(teams),
    ):
        look(team)
        await call(step)
    look(team)
    event.remove(Engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def rows(arena):
    with arena.session() as session:
        session.add(Member(role="new", team=session.get(Team, 1), user=User()))
        session.add(Tag(team_id=1))
        session.commit()


@loads
async def test_an_async_session(arena, db_session, rows, options):
    async with arena.fresh(), AsyncSession(engine, expire_on_commit=False) as own:
        expected = await outcomes(own, options)
    assert await outcomes(db_session, options) == expected


@loads
def test_a_sync_session(arena, db_session, rows, options):
    def run(db):
        with pytest.raises(StopIteration) as ended:
            outcomes(db, options).send(None)  # no step awaits
        return ended.value.value

    with arena.fresh(), Session(sync_engine, expire_on_commit=False) as own:
        expected = run(own)
    assert run(db_session) == expected


@loads
async def test_what_was_loaded_stays_readable_after_a_request(db_session, client, rows, options):
    query = select(Team).options(selectinload(Team.tags), selectinload(Team.members))
    team = (await db_session.scalars(query)).first()
    user = team.members[0].user
    await client.put("/members")
    await client.put("/teams/1/Ruby")
    await db_session.scalars(select(Team).options(*options))
    assert (team.name, team.tags, team.members[0].role) == ("Ruby", [], "captain")
    assert team.members[0].user is user
    team.members.clear()  # no warning: the collection is valid


def test_what_was_loaded_is_loaded_again_after_a_sync_request(db_session, test_client, rows):
    [team] = db_session.scalars(select(Team))
    assert (len(team.tags), team.name) == (1, "Sand")
    test_client.put("/members")
    test_client.put("/teams/1/Ruby")
    [again] = db_session.scalars(select(Team).options(defer(Team.name)))
    assert (again.tags, again.name) == ([], "Ruby")
