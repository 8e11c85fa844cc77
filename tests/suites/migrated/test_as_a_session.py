"""`db_session` loads, keeps and expires as a session of the app does, until another one commits."""

import re
from inspect import isawaitable

import pytest
from sqlalchemy import create_engine, event, select
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    Session,
    defer,
    joinedload,
    lazyload,
    load_only,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
)
from team_app import Member, Tag, Team, User, engine

sync_engine = create_engine(engine.url.set(drivername="postgresql+psycopg"))


async def call(function, *args, **options):
    found = function(*args, **options)
    return await found if isawaitable(found) else found


async def first(db, *options):
    return (await call(db.scalars, select(Team).options(*options).order_by(Team.id))).first()


def reading(*options):
    async def read(db):
        team = await first(db, *options)
        yield lambda: [len(team.members), len(team.tags), team.name]
        await first(db)
        yield lambda: [len(team.members), len(team.tags), team.name]

    return read


async def selects_twice(db):
    team = await first(db, selectinload(Team.tags), selectinload(Team.members))
    await call(db.scalars, select(Member).options(lazyload(Member.team)))
    await call(db.get, Team, team.id, options=[undefer(Team.name)])
    yield lambda: [len(team.tags), len(team.members[0].user.memberships)]


async def refreshes(db):
    team = await first(db, selectinload(Team.tags), defer(Team.name))
    await call(db.refresh, team)
    yield lambda: len(team.tags)
    await call(db.refresh, team, ["members"])
    yield lambda: len(team.members)


async def expires(db):
    team = await first(db, selectinload(Team.tags))
    db.expire(team, ["name"])
    yield lambda: team.name
    db.expire(team)
    await first(db)
    yield lambda: [team.name, len(team.tags)]


async def rolls_back(db):
    team = await first(db, selectinload(Team.tags))
    await call(db.rollback)
    yield lambda: team.name


async def forgets(db):
    team = await first(db, selectinload(Team.tags))
    db.expunge_all()
    again = await first(db)
    yield lambda: [again is team, len(team.tags), len(again.tags)]


async def populates(db):
    team = await first(db, selectinload(Team.tags))
    await first(db, selectinload(Team.members))
    query = select(Team).execution_options(populate_existing=True)
    await call(db.scalars, query.order_by(Team.id))
    yield lambda: len(team.tags)


async def writes(db):
    team = Team(name="Dune", tags=[Tag()])
    db.add(team)
    await call(db.commit)
    await first(db)
    team.tags.append(Tag())
    await call(db.scalars, select(Team))
    await call(db.commit)
    yield lambda: [len(team.tags), team.name]
    await call(db.delete, team)
    await call(db.commit)


SCRIPTS = {
    "lazy": reading(),
    "selectin": reading(selectinload(Team.members), selectinload(Team.tags)),
    "subquery": reading(subqueryload(Team.members), subqueryload(Team.tags)),
    "joined": reading(joinedload(Team.members).joinedload(Member.user), selectinload(Team.tags)),
    "raise": reading(raiseload(Team.tags), selectinload(Team.members)),
    "only": reading(load_only(Team.id), selectinload(Team.members), joinedload(Team.tags)),
    "defer": reading(defer(Team.name), selectinload(Team.members).raiseload("*")),
    **{each.__name__: each for each in (selects_twice, refreshes, expires, rolls_back)},
    **{each.__name__: each for each in (forgets, populates, writes)},
}


async def outcomes(db, script):
    """Return the statements of a script, and after each step the instances and what one reads."""
    found = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(connection, cursor, statement, *_):
        found.append(re.sub(r"\$\d+|%\(\w+\)s", "?", statement))  # of each driver

    async for read in script(db):
        found += sorted([type(each).__name__, *sorted(vars(each))] for each in db)
        try:
            found.append(str(read()))
        except Exception as error:
            found.append(type(error).__name__)
    event.remove(Engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def rows(arena):
    with arena.session() as session:
        session.add(Member(role="new", team=session.get(Team, 1), user=User()))
        session.add(Tag(team_id=1))
        session.commit()


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_an_async_session(db_session, rows, script):
    async with AsyncSession(engine, expire_on_commit=False) as own:
        expected = await outcomes(own, script)
    assert await outcomes(db_session, script) == expected


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_sync_session(db_session, rows, script):
    def run(db):
        with pytest.raises(StopIteration) as ended:
            outcomes(db, script).send(None)  # no step awaits
        return ended.value.value

    with Session(sync_engine, expire_on_commit=False) as own:
        expected = run(own)
    assert run(db_session) == expected
    sync_engine.dispose()


@pytest.mark.parametrize("load", [selectinload, subqueryload, joinedload])
async def test_what_was_loaded_stays_readable_after_a_request(db_session, client, rows, load):
    team = await first(db_session, load(Team.tags), load(Team.members))
    user = team.members[0].user
    await client.put("/members")
    await client.put("/teams/1/Ruby")
    await first(db_session)
    assert (team.name, team.tags, team.members[0].role) == ("Ruby", [], "captain")
    assert team.members[0].user is user
    team.members.clear()


def test_what_was_loaded_is_loaded_again_after_a_sync_request(db_session, test_client, rows):
    [team] = db_session.scalars(select(Team).options(selectinload(Team.tags), defer(Team.name)))
    assert (len(team.tags), team.name) == (1, "Sand")
    test_client.put("/members")
    test_client.put("/teams/1/Ruby")
    with db_session.no_autoflush:
        [again] = db_session.scalars(select(Team).options(defer(Team.name)))
    assert (again.tags, again.name) == ([], "Ruby")
