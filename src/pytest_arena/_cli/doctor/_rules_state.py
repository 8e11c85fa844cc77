"""Tests whose tables, engines and sessions outlive them, or cost more than they need to."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import WIDE, dotted, keyword, last_name, text_of
from pytest_arena._cli.doctor._rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._code import Code

_ENGINES = ("create_engine", "create_async_engine")
_MEMORY = re.compile(r"sqlite(?:\+\w+)?://(?:/?:memory:.*|/?)$")
_EMPTIES = re.compile(r"(?i)\s*TRUNCATE\s")


def _url(code: Code, call: ast.Call) -> ast.expr | None:
    """The URL of an engine, as it is written; a name of the module stands for its value."""
    url = call.args[0] if call.args else keyword(call, "url")
    return (code.assigned(url.id) or url) if isinstance(url, ast.Name) else url


def _in_memory(code: Code, call: ast.Call) -> bool:
    text = text_of(_url(code, call))
    wrong_driver = last_name(call) == "create_engine" and "aiosqlite" in text
    return bool(_MEMORY.match(text)) and not wrong_driver


@rule("ARD401", "memory-without-static-pool", words=("sqlite",), ended=True)
def memory_without_static_pool(code: Code) -> Iterator[Finding]:
    """A sync engine in memory has no `StaticPool`, and a test client's threads use it.

    Each thread has a connection of its own, and with it an empty database: "no such table".

    Instead: with pytest-arena the app's own engine, and no URL of the tests. Without it:
    `poolclass=StaticPool, connect_args={"check_same_thread": False}`.

    Fails:

        from fastapi.testclient import TestClient

        engine = create_engine("sqlite://")

    Passes:

        from fastapi.testclient import TestClient

        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args=ANY_THREAD)
    """
    for call in code.called("create_engine") if code.has("TestClient") else ():
        unknown = any(each.arg in {None, "poolclass", "creator"} for each in call.keywords)
        test = code.test_of(call)
        shared = code.is_at_import(call) or (test is not None and test.fixture is not None)
        if shared and _in_memory(code, call) and not unknown:
            yield Finding(call, ast.unparse(call))


@rule("ARD402", "memory-engine-at-import", words=("sqlite",), ended=True)
def memory_engine_at_import(code: Code) -> Iterator[Finding]:
    """One database in memory, made at import, serves all tests, and nothing empties it.

    What a test has committed is there in all later ones. They pass alone and fail together, or the
    other way round.

    Instead: with pytest-arena each test has a database of its own; delete the engine. Without it:
    an engine for each test, in a fixture, on a file below `tmp_path`.

    Fails:

        engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=StaticPool)

        async def test_create(tables):
            async with AsyncSession(engine, expire_on_commit=False) as session:
                session.add(Dancer(name="ada"))
                await session.commit()

    Passes:

        import pytest

        @pytest.fixture
        async def engine(tmp_path):
            engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
            yield engine
            await engine.dispose()
    """
    undone = (
        "drop_all",
        "rollback",
        "begin_nested",
        "delete",
        "DELETE",
        "TRUNCATE",
        "create_savepoint",
    )
    for call in code.called(*_ENGINES):
        used = code.has("commit(", "Client", "create_all")
        if code.is_at_import(call) and _in_memory(code, call) and used and not code.has(*undone):
            yield Finding(call, ast.unparse(call))


@rule("ARD403", "tables-for-each-test", words=("create_all",), ended=True)
def tables_for_each_test(code: Code) -> Iterator[Finding]:
    """A fixture makes all tables for each test.

    It costs as much as the schema is large, again for each test: most of a suite's time, often.

    Instead: with pytest-arena `arena_schema = "shop.models:Base"`: they are made once, and each
    test has a copy. Without it: a fixture with `scope="session"`.

    Fails:

        import pytest

        @pytest.fixture(autouse=True)
        def tables(engine):
            Base.metadata.create_all(engine)
            yield engine
            Base.metadata.drop_all(engine)

    Passes:

        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def tables(engine):
            Base.metadata.create_all(engine)
    """
    for fixture in code.fixtures:
        named = [
            each
            for each in fixture.nodes
            if isinstance(each, ast.Attribute) and each.attr == "create_all"
        ]
        whole = [each for each in named if dotted(each).endswith("metadata.create_all")]
        if whole and fixture.scope == "function":
            yield Finding(whole[0], fixture.node.name)


@rule("ARD404", "drops-what-settings-name", words=("drop_all", "drop_database"), ended=True)
def drops_what_settings_name(code: Code) -> Iterator[Finding]:
    """The tests drop the database that a setting names, or all of its tables.

    The setting is the app's, or a variable of the environment with the app's name. Where it is not
    set for the tests, it names the development database.

    Instead: with pytest-arena no URL and no clean-up: delete both. Without it: a setting of the
    tests' own, with `test` in its name, and a check of the database's name before the first
    statement.

    Fails:

        import os, pytest

        @pytest.fixture(scope="session")
        def engine():
            engine = create_engine(os.environ["DATABASE_URL"])
            Base.metadata.drop_all(engine)
            yield engine
            engine.dispose()

    Passes:

        import os, pytest

        @pytest.fixture(scope="session")
        def engine():
            engine = create_engine(os.environ["TEST_DATABASE_URL"])
            Base.metadata.drop_all(engine)
            yield engine
            engine.dispose()
    """
    drops = any(
        isinstance(each, ast.Attribute) and each.attr == "drop_all" for each in code.parents
    )
    for call in code.called(*(_ENGINES if drops else ()), "drop_database"):
        url = ast.unparse(_url(code, call) or ast.Constant(""))
        setting = re.search(r"(?i)\bsettings\b|\bconfig\b|environ\b|getenv", url)
        if setting and "test" not in url.lower():
            yield Finding(call, url)


@rule("ARD405", "emptied-by-hand", words=("sorted_tables", "TRUNCATE", "truncate"), ended=True)
def emptied_by_hand(code: Code) -> Iterator[Finding]:
    """A fixture empties all tables for each test.

    It costs a statement for each table, also for those that nobody has written to. Rows of the
    seed are gone, too, and sequences go on where they were.

    Instead: delete it: with pytest-arena the database is back where it was when the test ends,
    with seed and sequences, at the price of what the test has changed.

    Fails:

        import pytest

        @pytest.fixture(autouse=True)
        def clean(session):
            yield session
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
            session.commit()

    Passes:

        import pytest

        @pytest.fixture
        def dancer(session):
            session.add(Dancer(name="ada"))
            session.commit()
    """
    for fixture in code.fixtures:
        emptying = [each for each in fixture.nodes if _empties(each)]
        if emptying and fixture.scope == "function":
            yield Finding(emptying[0], fixture.node.name)


def _empties(node: ast.AST) -> bool:
    """Whether a statement goes through all tables and deletes, or a `TRUNCATE` is sent."""
    match node:
        case ast.For(iter=over):
            deletes = re.search(r"(?i)delete|truncate", ast.unparse(node))
            return "sorted_tables" in ast.unparse(over) and bool(deletes)
        case ast.Call(args=[ast.Constant() | ast.JoinedStr() as sent, *_], func=function):
            sends = last_name(function) in {"text", "execute", "exec_driver_sql", "exec"}
            return sends and bool(_EMPTIES.match(text_of(sent)))
    return False


@rule("ARD406", "scoped-session-kept", words=("scoped_session(",), ended=True)
def scoped_session_kept(code: Code) -> Iterator[Finding]:
    """A `scoped_session` is made, and never removed.

    It is one session for all tests of a thread: objects of one test are found in the next, and
    what one has not committed is committed by another.

    Instead: `Session.remove()` after each test's `yield`; with pytest-arena it is empty in the
    next test by itself.

    Fails:

        Session = scoped_session(sessionmaker(bind=engine))

    Passes:

        import pytest

        Session = scoped_session(sessionmaker(bind=engine))

        @pytest.fixture(autouse=True)
        def session():
            yield Session()
            Session.remove()
    """
    for call in code.called("scoped_session", "async_scoped_session"):
        text = code.text + code.around.conftests()
        if not any(each in text for each in (".remove(", ".registry.clear(", ".rollback(")):
            yield Finding(call, ast.unparse(code.statement_of(call)).partition(" =")[0])


@rule("ARD408", "session-for-many-tests", words=("scope=",), ended=True)
def session_for_many_tests(code: Code) -> Iterator[Finding]:
    """One database session serves many tests.

    Objects that one test has loaded are what the next one is given, however the rows are by then.
    An error in one leaves a transaction that all later ones fail in.

    Instead: a session for each test: `db_session` of pytest-arena; data that is shared stays in a
    wide fixture, with a session of its own.

    Fails:

        import pytest

        @pytest.fixture(scope="session")
        def db():
            with Session(engine) as session:
                yield session

    Passes:

        import pytest

        @pytest.fixture
        def db():
            with Session(engine) as session:
                yield session
    """
    for fixture in code.fixtures:
        if fixture.scope not in WIDE:
            continue
        sessions = {
            dotted(item.optional_vars)
            for node in fixture.own_nodes
            if isinstance(node, ast.With | ast.AsyncWith)
            for item in node.items
            if re.search(
                r"(?:^|\.)(?:\w*[Ss]ession_?(?:[Mm]aker|[Ll]ocal|[Ff]actory)?)$",
                dotted(item.context_expr),
            )
            and re.search(r"(?i)session|db", dotted(item.optional_vars))
        }
        http = re.search(r"aiohttp|requests|ClientSession", code.text)
        for node in fixture.own_nodes:
            if isinstance(node, ast.Yield) and dotted(node.value) in sessions - {""} and not http:
                yield Finding(node, fixture.node.name)
