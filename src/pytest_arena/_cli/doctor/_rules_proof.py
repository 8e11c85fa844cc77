"""Tests that are green whatever the app does."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import dotted, keyword, last_name, names_in
from pytest_arena._cli.doctor._rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._code import Code, Function

_MOCKS = ("Mock", "MagicMock", "AsyncMock", "NonCallableMock", "create_autospec")
_SESSION = re.compile(
    r"(?i)(?:^|_)(?:db|database|async|sql|sa)_?session(?:_mock)?$|^(?:mock_)?db(?:_mock)?$"
)
_RECEIVER = re.compile(
    r"(?i)(?:^|[._])(?:db|(?:mock_)?session|db_session|async_session)(?:_mock)?$"
)
_METHODS = {
    "add",
    "add_all",
    "commit",
    "delete",
    "execute",
    "flush",
    "merge",
    "refresh",
    "rollback",
    "scalar",
    "scalars",
}
_SERVER_ERROR = 500
_VERBS = {"get", "post", "put", "patch", "delete", "request", "options", "head"}
_ASSERTS = re.compile(
    r"(?i)assert|expect|check|verif|valid|should|must|raises|warns|ensure|compare|match|fail|snapshot|approve|raise_for_status|benchmark"
)


def _is_session_type(code: Code, node: ast.expr | None) -> bool:
    origin = code.origin(node) if node is not None else ""
    known = origin.startswith(("sqlalchemy", "sqlmodel"))
    return known and origin.rpartition(".")[2] in {"Session", "AsyncSession", "scoped_session"}


@rule("ARD501", "session-mocked", words=_MOCKS, ended=True)
def session_mocked(code: Code) -> Iterator[Finding]:
    """A mock stands for the database session.

    It takes every statement, and enforces nothing: no constraint, no type, no missing table, no
    forgotten commit. The test shows that the code calls what it calls.

    Instead: `db_session` of pytest-arena: a real session for about the time of one query.

    Fails:

        from unittest.mock import AsyncMock
        from sqlalchemy.ext.asyncio import AsyncSession

        async def test_create():
            session = AsyncMock(spec=AsyncSession)
            await create_dancer(session, name="ada")

    Passes:

        async def test_create(db_session):
            await create_dancer(db_session, name="ada")
            assert await db_session.scalar(select(func.count(Dancer.id))) == 1
    """
    for call in code.called(*_MOCKS):
        spec = keyword(call, "spec") or keyword(call, "spec_set") or next(iter(call.args), None)
        statement = code.statement_of(call)
        target = (
            dotted(statement.targets[0])
            if isinstance(statement, ast.Assign) and statement.value is call
            else ""
        )
        named = _SESSION.search(target) and "sqlalchemy" in code.text + code.around.conftests()
        if _is_session_type(code, spec) or (named and spec is None):
            yield Finding(call, target or ast.unparse(call))


@rule("ARD502", "commit-patched-away", words=("commit", "flush"), ended=True)
def commit_patched_away(code: Code) -> Iterator[Finding]:
    """`commit` of a session is replaced, so that nothing is committed.

    Constraints that are checked at the commit, triggers, what other connections see, and a commit
    that the app forgot: none of it is tested.

    Instead: delete it: with pytest-arena the app commits really, and the commit is taken back
    after the test.

    Fails:

        import pytest

        @pytest.fixture
        def db_session(session):
            session.commit = session.flush
            yield session

    Passes:

        import pytest

        @pytest.fixture
        def db_session(session):
            yield session
    """
    for node in code.parents:
        match node:
            case ast.Assign(targets=[ast.Attribute(value=owner, attr="commit")], value=value):
                mocked = last_name(value) in _MOCKS
                if _RECEIVER.search(dotted(owner)) and code.function_of(node) and not mocked:
                    yield Finding(node, f"{dotted(owner)}.commit")
            case ast.Call(args=[owner, ast.Constant(value="commit"), *_], func=func):
                if last_name(func) in {"object", "setattr"} and _is_session(code, owner):
                    yield Finding(node, f"{dotted(owner)}.commit")


def _is_session(code: Code, node: ast.expr) -> bool:
    return bool(_RECEIVER.search(dotted(node))) or _is_session_type(code, node)


@rule(
    "ARD503",
    "session-calls-asserted",
    words=("assert_called", "assert_awaited", "assert_not_called"),
    ended=True,
)
def session_calls_asserted(code: Code) -> Iterator[Finding]:
    """A test asserts which methods of the session were called.

    It says nothing of the rows. It stays green when the statement is wrong, and fails when the
    code is written in another way that does the same.

    Instead: assert the rows: `arena.expect_changes(inserted={…})` of pytest-arena, or a `select`
    by `db_session`.

    Fails:

        def test_create(db):
            create_dancer(db, name="ada")
            db.commit.assert_called_once()

    Passes:

        def test_create(db_session):
            create_dancer(db_session, name="ada")
            assert db_session.scalar(select(Dancer.name)) == "ada"
    """
    kinds = ("assert_called", "assert_awaited", "assert_not_", "assert_any_", "assert_has_")
    for call in code.called(*(name for name in list(code.calls) if name.startswith(kinds))):
        match call.func:
            case ast.Attribute(value=ast.Attribute(value=owner, attr=method), attr=name):
                if method in _METHODS and _RECEIVER.search(dotted(owner)):
                    yield Finding(call, f"{dotted(owner)}.{method}.{name}")


def _requests(test: Function) -> list[ast.Call]:
    """The requests that a test makes."""
    return [
        node
        for node in test.own_nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _VERBS
        and re.search(r"(?i)client(?:_\w+)?$", dotted(node.func.value))
        and node.args
    ]


def _answers(code: Code, test: Function) -> dict[str, ast.Call]:
    """The names that hold the answers of a test's requests."""
    answers = {}
    for call in _requests(test):
        match code.statement_of(call):
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Await(value=value) | value) if (
                value is call
            ):
                answers[name] = call
    return answers


@rule("ARD504", "nothing-asserted", words=("client",))
def nothing_asserted(code: Code) -> Iterator[Finding]:
    """A test makes requests and looks at no answer.

    A 404 and a 500 are answers, too: the test is green with each of them.

    Instead: `assert response.status_code == 201`, and an assertion on what has changed.

    Fails:

        def test_create(client):
            client.post("/dancers", json={"name": "ada"})

    Passes:

        def test_create(client):
            response = client.post("/dancers", json={"name": "ada"})
            assert response.status_code == 201
    """
    for test in code.tests:
        requests = _requests(test)
        if not requests or any(isinstance(each, ast.Assert | ast.Raise) for each in test.nodes):
            continue
        answers = _answers(code, test).keys()
        calls = [each for each in test.nodes if isinstance(each, ast.Call)]
        told = any(_ASSERTS.search(dotted(each.func)) for each in calls)
        handed = any(
            answers & names_in(*each.args, *(k.value for k in each.keywords)) for each in calls
        )
        fixtures = any(
            last_name(each).startswith("mark") or "raises" in ast.unparse(each)
            for each in test.node.decorator_list
        )
        if not told and not handed and not fixtures:
            yield Finding(test.node, test.node.name)


@rule("ARD505", "asserted-only-if", words=("if response", "if resp", ".status_code == "))
def asserted_only_if(code: Code) -> Iterator[Finding]:
    """All assertions of a test stand below an `if` that hangs on the app's answer.

    With another answer nothing is asserted, and the test is green: also when the app is broken.

    Instead: assert the condition: `assert response.status_code == 200`, and then the rest, without
    `if`.

    Fails:

        def test_read(client):
            response = client.get("/dancers/1")
            if response.status_code == 200:
                assert response.json()["name"] == "ada"

    Passes:

        def test_read(client):
            response = client.get("/dancers/1")
            assert response.status_code == 200
            assert response.json()["name"] == "ada"
    """
    for test in code.tests:
        answers = set(_answers(code, test))
        asserts = [each for each in test.nodes if isinstance(each, ast.Assert)]
        told = any(
            _ASSERTS.search(dotted(each.func)) for each in test.nodes if isinstance(each, ast.Call)
        )
        guards = [_guard(code, each, answers) for each in asserts]
        if asserts and not told and all(guards) and guards[0]:
            yield Finding(guards[0], ast.unparse(guards[0].test))


def _guard(code: Code, node: ast.AST, answers: set[str]) -> ast.If | None:
    """The `if` on an answer that an assertion stands below, where there is no other branch."""
    for around in code.around_of(node):
        if isinstance(around, ast.If) and not around.orelse and names_in(around.test) & answers:
            return around
    return None


@rule("ARD506", "failed-assertion-swallowed", words=("except",))
def failed_assertion_swallowed(code: Code) -> Iterator[Finding]:
    """An assertion stands in a `try` whose `except` swallows its failure.

    `AssertionError` is an `Exception`: the assertion fails, and the test is green.

    Instead: without `try`; for an error that is meant: `with pytest.raises(TheError):`.

    Fails:

        def test_read(client):
            try:
                assert client.get("/dancers").status_code == 200
            except Exception:
                pass

    Passes:

        def test_read(client):
            assert client.get("/dancers").status_code == 200
    """
    for test in code.tests:
        for node in test.own_nodes:
            handlers = node.handlers if isinstance(node, ast.Try) and _asserts(node) else []
            for handler in filter(_swallows, handlers):
                yield Finding(node, ast.unparse(handler).partition("\n")[0])


def _asserts(node: ast.Try) -> bool:
    return any(isinstance(each, ast.Assert) for each in node.body)


def _swallows(handler: ast.ExceptHandler) -> bool:
    kinds = {"", "Exception", "BaseException", "AssertionError"}
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(dotted(each) in kinds for each in caught)
    nodes = [each for statement in handler.body for each in ast.walk(statement)]
    ends = any(
        isinstance(each, ast.Raise | ast.Assert | ast.Return | ast.Continue) for each in nodes
    )
    calls = any(
        isinstance(each, ast.Call) and _ASSERTS.search(dotted(each.func) + ".") for each in nodes
    )
    skips = any(
        isinstance(each, ast.Call) and last_name(each) in {"skip", "xfail", "exit", "append"}
        for each in nodes
    )
    return broad and not ends and not calls and not skips


@rule(
    "ARD507",
    "success-or-failure",
    words=("status_code in", "status_code <", "status_code !=", ".status in"),
)
def success_or_failure(code: Code) -> Iterator[Finding]:
    """An assertion takes a success and a failure alike.

    Whether the app did what was asked is not tested: with either answer the test is green.

    Instead: the one status that is right: `assert response.status_code == 201`.

    Fails:

        def test_delete(client):
            response = client.delete("/dancers/1")
            assert response.status_code in (204, 404)

    Passes:

        def test_delete(client):
            response = client.delete("/dancers/1")
            assert response.status_code == 204
    """
    for test in code.tests:
        for node in test.own_nodes:
            if isinstance(node, ast.Assert) and _takes_both(node.test):
                yield Finding(node, ast.unparse(node.test))


def _takes_both(test: ast.expr) -> bool:
    """Whether a comparison of a status is true of a success and of a failure."""
    match test:
        case ast.Compare(left=ast.Attribute(attr="status_code" | "status"), ops=[operator]):
            right = test.comparators[0]
        case _:
            return False
    match operator, right:
        case (ast.Lt() | ast.LtE() | ast.NotEq(), ast.Constant(value=int(limit))):
            return limit >= _SERVER_ERROR
        case (ast.In(), ast.Tuple(elts=each) | ast.List(elts=each) | ast.Set(elts=each)):
            classes = {status_of(code) // 100 for code in each}
            return {2} <= classes and bool(classes & {4, 5})
    return False


def status_of(node: ast.expr) -> int:
    """A status, as a number or as a constant of Starlette's."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Attribute(attr=name) | ast.Name(id=name):
            found = re.match(r"HTTP_(\d{3})_", name)
            return int(found[1]) if found else 0
    return 0
