"""Tests that mix event loops."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import (
    WIDE,
    AnyFunction,
    dotted,
    keyword,
    last_name,
)
from pytest_arena._cli.doctor._rule import Finding, Replacement, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._code import Code

_DATABASE = re.compile(
    r"(?i)^(?:(?:\w+_)?(?:engine|database|db)|(?:(?:async|db|test)_)?session(?:_?maker|_factory|local)?"
    r"|(?:create|drop)_all|(?:create|drop|init|reset|setup)_(?:db|database|(?:async_)?tables))$"
)
_KNOWN_MARKS = {"parametrize", "skip", "skipif", "xfail", "usefixtures", "fixture", "timeout"}


@rule("ARD301", "event-loop-overridden", words=("def event_loop",), ended=True)
def event_loop_overridden(code: Code) -> Iterator[Finding]:
    """The fixture `event_loop` is overridden.

    pytest-asyncio 1.0 has taken it away: the override does nothing any more, and tests and wide
    fixtures run on different loops again. With older versions it was deprecated, and hid the same
    fault.

    Instead: delete it; with pytest-arena no loop scope is needed. Without it:
    `asyncio_default_fixture_loop_scope` and `asyncio_default_test_loop_scope` in the
    configuration.

    Fails:

        import asyncio, pytest

        @pytest.fixture(scope="session")
        def event_loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.close()

    Passes:

        # file: pytest.ini
        [pytest]
        asyncio_default_fixture_loop_scope = session
        asyncio_default_test_loop_scope = session

        # file: tests/conftest.py
        import pytest
    """
    for fixture in code.fixtures:
        if fixture.node.name == "event_loop":
            yield Finding(fixture.node, "event_loop")


@rule("ARD302", "loop-inside-test", words=("asyncio.run(", "run_until_complete("), ended=True)
def loop_inside_test(code: Code) -> Iterator[Finding]:
    """A test or a fixture runs database work on an event loop of its own.

    The connections that are made there stay in the engine's pool when the loop is closed. The next
    one to use the engine gets "attached to a different loop", or "Event loop is closed".

    Instead: an async test or fixture: `async def`, and `await`. With pytest-arena a sync test may
    also use the sync `db_session` and `test_client`.

    Fails:

        import asyncio, pytest

        @pytest.fixture
        def database():
            asyncio.run(init_db())

    Passes:

        import pytest

        @pytest.fixture
        async def database():
            await init_db()
    """
    for call in code.called("run", "run_until_complete"):
        runs = last_name(call) == "run_until_complete" or code.origin(call.func) == "asyncio.run"
        test = code.test_of(call)
        if runs and test and call.args and _works_on_database(_ran(code, call.args[0])):
            yield Finding(call, ast.unparse(call))


def _works_on_database(*nodes: ast.AST) -> bool:
    """Whether a name of a session, an engine or a database stands there, and none of a mock."""
    every = [each for node in nodes for each in ast.walk(node)]
    names = [each.id if isinstance(each, ast.Name) else last_name(each) for each in every]
    http = any("ClientSession" in each or "mock" in each.lower() for each in names)
    return not http and any(map(_DATABASE.match, names))


def _ran(code: Code, argument: ast.expr) -> ast.AST:
    """The function of the same file whose coroutine is run, else what is written there."""
    name = dotted(argument)
    own = (each for each in code.parents if isinstance(each, AnyFunction) and each.name == name)
    return next(own, argument)


@rule("ARD303", "wide-async-engine", words=("create_async_engine",), ended=True)
def wide_async_engine(code: Code) -> Iterator[Finding]:
    """An async engine outlives a test, and each test has a loop of its own.

    A pooled connection belongs to the loop that it was made on. pytest-asyncio gives each test a
    new one: the second test gets "attached to a different loop".

    Instead: with pytest-arena, delete the fixture: the app's engine and `db_session` work on any
    loop. Without it: `poolclass=NullPool`, or `asyncio_default_test_loop_scope = session`.

    Fails:

        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session")
        async def engine():
            engine = create_async_engine("postgresql+asyncpg://localhost/test")
            yield engine
            await engine.dispose()

    Passes:

        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session")
        async def engine():
            engine = create_async_engine("postgresql+asyncpg://localhost/test", poolclass=NullPool)
            yield engine
            await engine.dispose()
    """
    if _shares_loops(code):
        return
    for call in code.called("create_async_engine"):
        test = code.test_of(call)
        wide = test is not None and test.scope in WIDE - {"class"}
        if (wide or code.is_at_import(call)) and _pools(code, call):
            yield Finding(call, ast.unparse(code.statement_of(call)).partition(" =")[0])


def _shares_loops(code: Code) -> bool:
    """Whether all tests run on one loop, or might, or are no tests of pytest-asyncio's."""
    text = code.text + code.around.conftests()
    wide = "loop_scope=" in text or "def event_loop" in text or "anyio_backend" in text
    return wide or code.around.one_loop


def _pools(code: Code, call: ast.Call) -> bool:
    """Whether an engine keeps connections of a server."""
    url = call.args[0] if call.args else keyword(call, "url")
    if isinstance(url, ast.Name):
        url = code.assigned(url.id) or url
    unknown = any(each.arg in {None, "poolclass", "pool"} for each in call.keywords)
    return not unknown and not (url and "sqlite" in ast.unparse(url))


@rule("ARD305", "coroutine-test-without-mark", words=("async def test",))
def coroutine_test_without_mark(code: Code) -> Iterator[Finding]:
    """An async test has no mark, and pytest-asyncio is in its strict mode.

    Nobody awaits it. Before pytest 8.4 it was skipped with a warning: green, and never run.

    Instead: `@pytest.mark.asyncio` on the test, or `asyncio_mode = auto` in the configuration.

    Fails:

        # file: pytest.ini
        [pytest]
        asyncio_mode = strict

        # file: tests/test_it.py
        async def test_root(client):
            assert (await client.get("/")).status_code == 200

    Passes:

        # file: pytest.ini
        [pytest]
        asyncio_mode = strict

        # file: tests/test_it.py
        import pytest

        @pytest.mark.asyncio
        async def test_root(client):
            assert (await client.get("/")).status_code == 200
    """
    text = code.around.conftests()
    if not code.around.is_strict or "pytestmark" in code.text or "add_marker" in text:
        return
    for test in code.tests:
        marks = [*test.node.decorator_list, *(test.owner.decorator_list if test.owner else [])]
        known = all(last_name(each) in _KNOWN_MARKS for each in marks)
        plain = not test.owner or not test.owner.bases
        if test.is_async and known and plain and "anyio_backend" not in test.parameters:
            yield Finding(test.node, test.node.name)


@rule("ARD306", "coroutine-fixture-of-pytest", words=("pytest_asyncio", "mark.asyncio"))
def coroutine_fixture_of_pytest(code: Code) -> Iterator[Finding]:
    """An async fixture is made by `pytest.fixture`, and pytest-asyncio is in its strict mode.

    Nobody awaits it: the test is given a coroutine, or an async generator, in place of what is
    meant.

    Instead: `@pytest_asyncio.fixture`, which `--fix` writes where that module is imported.

    Fails:

        # file: pytest.ini
        [pytest]
        asyncio_mode = strict

        # file: tests/conftest.py
        import pytest
        import pytest_asyncio

        @pytest.fixture
        async def dancer():
            return await make_dancer()

    Passes:

        # file: pytest.ini
        [pytest]
        asyncio_mode = strict

        # file: tests/conftest.py
        import pytest_asyncio

        @pytest_asyncio.fixture
        async def dancer():
            return await make_dancer()
    """
    uses = code.has("pytest_asyncio", "mark.asyncio") and "anyio" not in code.text
    if not uses or not code.around.is_strict or "anyio" in code.around.conftests():
        return
    for fixture in code.fixtures:
        maker = fixture.fixture.func if isinstance(fixture.fixture, ast.Call) else fixture.fixture
        if fixture.is_async and maker is not None and dotted(maker) == "pytest.fixture":
            at_hand = code.imports.get("pytest_asyncio") == "pytest_asyncio"
            edit = Replacement(
                maker.lineno, maker.col_offset, "pytest.fixture", "pytest_asyncio.fixture"
            )
            yield Finding(fixture.node, fixture.node.name, (edit,) if at_hand else ())


@rule("ARD307", "flag-guards-set-up", words=("global ",), ended=True)
def flag_guards_set_up(code: Code) -> Iterator[Finding]:
    """A flag of the module sees to it that the database is set up once.

    The engine is made on the first test's loop, and the flag keeps later tests from making it
    anew: "attached to a different loop". With pytest-xdist each worker has a flag of its own.

    Instead: delete it: with pytest-arena the schema is built once (`arena_schema`), and each test
    has its own copy. Without it: a fixture with `scope="session"`.

    Fails:

        import pytest

        _initialized = False

        @pytest.fixture(autouse=True)
        async def database():
            global _initialized
            if not _initialized:
                await init_db()
                _initialized = True

    Passes:

        import pytest

        @pytest.fixture(scope="session", autouse=True)
        async def database():
            await init_db()
    """
    for fixture in code.fixtures:
        globals_ = [each for each in fixture.own_nodes if isinstance(each, ast.Global)]
        declared = {name for each in globals_ for name in each.names}
        for node in fixture.own_nodes:
            flag = _negated(node)
            if isinstance(node, ast.If) and flag in declared and _sets_up(node, flag):
                yield Finding(node, flag)


def _negated(node: ast.AST) -> str:
    """The name of which an `if` asks whether it is false."""
    match node:
        case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=name))):
            return name
    return ""


def _sets_up(node: ast.If, flag: str) -> bool:
    stored = {
        each.id
        for each in ast.walk(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    return flag in stored and _works_on_database(*calls)


@rule("ARD308", "lazy-load-after-commit", words=("async_sessionmaker(", "AsyncSession"), ended=True)
def lazy_load_after_commit(code: Code) -> Iterator[Finding]:
    """The tests' async sessions expire their objects at each commit.

    The next attribute of a committed object is loaded in secret, which an async session cannot:
    `MissingGreenlet`, far from its cause.

    Instead: `expire_on_commit=False`; `db_session` of pytest-arena has it.

    Fails:

        maker = async_sessionmaker(engine)

    Passes:

        maker = async_sessionmaker(engine, expire_on_commit=False)
    """
    for call in code.called("async_sessionmaker", "sessionmaker"):
        kind = keyword(call, "class_")
        makes_async = last_name(call) != "sessionmaker" or dotted(kind).endswith("AsyncSession")
        given = {each.arg for each in call.keywords}
        bound = bool(call.args) or "bind" in given or kind is not None
        explicit = given & {None, "expire_on_commit"} or code.has("expire_on_commit=True")
        test = code.test_of(call)
        if makes_async and bound and not explicit and not (test and test.fixture is None):
            yield Finding(call, ast.unparse(call.func))
