"""Tests that are green whatever the app does, or by chance."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import (
    AnyWith,
    Code,
    Function,
    all_below,
    call_names,
    dotted,
    given,
    keyword,
    names_in,
    of_kind,
    target_of,
)
from pytest_arena._cli.doctor._rule import Finding, Findings, rule

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOCKS = ("Mock", "MagicMock", "AsyncMock", "NonCallableMock", "create_autospec")
_SESSION_TYPE = re.compile(
    r"(?:sqlalchemy|sqlmodel).*\.(?:Session|AsyncSession|scoped_session)"
)
_SESSION = re.compile(
    r"(?i)(?:^|_)(?:db|database|async|sql|sa)_?session(?:_mock)?$|^(?:mock_)?db(?:_mock)?$"
)
_SESSION_CALL = re.compile(
    r"(?i)(?:.*[._])?(?:db|(?:mock_)?session|db_session|async_session)(?:_mock)?"
    r"(?-i:\.(?:add|add_all|commit|delete|execute|flush|merge|refresh|rollback|scalar|scalars)"
    r"\.assert_\w+)"
)
_ASSERTED = (
    "assert_called",
    "assert_awaited",
    "assert_not_",
    "assert_any_",
    "assert_has_",
)
_REQUEST = re.compile(
    r"(?i).*client(?:_\w+)?\.(?-i:get|post|put|patch|delete|request|options|head)"
)
_ASSERTS = re.compile(
    r"(?i)assert|expect|check|verif|valid|should|must|raises|warns|ensure|compare|match|fail|snapshot|approve|raise_for_status|benchmark"
)
_COMPARED = ("status_code in", "status_code <", "status_code !=", ".status in")
_BOTH = re.compile(
    r".*\.status(?:_code)? (?:(?:<=?|!=) (?P<limit>[5-9]\d\d)|in [\[({](?P<any>.*)[\])}])"
)


@rule("ARD501", "session-mocked", *_MOCKS, ended=True)
def session_mocked(code: Code) -> Findings:
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
        spec = (
            keyword(call, "spec")
            or keyword(call, "spec_set")
            or next(iter(call.args), None)
        )
        target = target_of(code.parents[call])
        named = (
            _SESSION.search(target)
            and "sqlalchemy" in code.text + code.around.conftests
        )
        if _SESSION_TYPE.fullmatch(code.origin(spec)) or (named and spec is None):
            yield Finding(call, target or ast.unparse(call))


@rule("ARD503", "session-calls-asserted", *_ASSERTED, ended=True)
def session_calls_asserted(code: Code) -> Findings:
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
    for call in code.called(
        *(name for name in list(code.calls) if name.startswith(_ASSERTED))
    ):
        if _SESSION_CALL.fullmatch(dotted(call.func)):
            yield Finding(call, dotted(call.func))


def _requests(test: Function) -> list[ast.Call]:
    """The requests that a test makes."""
    calls = of_kind(ast.Call, test.own_nodes)
    return [
        each for each in calls if each.args and _REQUEST.fullmatch(dotted(each.func))
    ]


def _answers(code: Code, test: Function) -> set[str]:
    """The names that hold the answers of a test's requests."""
    answers = set()
    for call in _requests(test):
        parent = code.parents[call]
        answers.add(
            target_of(code.parents[parent] if isinstance(parent, ast.Await) else parent)
        )
    return answers


def _is_told(nodes: Iterable[ast.AST]) -> bool:
    """Whether one of the calls among these nodes may assert something."""
    return any(map(_ASSERTS.search, call_names(nodes)))


@rule("ARD504", "nothing-asserted", "client")
def nothing_asserted(code: Code) -> Findings:
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
        asserted = any(isinstance(each, ast.Assert | ast.Raise) for each in test.nodes)
        if asserted or _is_told(test.nodes) or not _requests(test):
            continue
        answers = _answers(code, test)
        calls = of_kind(ast.Call, test.nodes)
        handed = any(answers & names_in(*given(each)) for each in calls)
        marks = test.node.decorator_list
        marked = any(
            re.search(r"(?:^|\.)mark\w*(?:\(|$)|raises", ast.unparse(each))
            for each in marks
        )
        if not handed and not marked:
            yield Finding(test.node, test.node.name)


@rule("ARD505", "asserted-only-if", "if response", "if resp", ".status_code == ")
def asserted_only_if(code: Code) -> Findings:
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
        answers = _answers(code, test)
        asserts = of_kind(ast.Assert, test.nodes)
        guards = [_guard(code, each, answers) for each in asserts]
        if guards and all(guards) and guards[0] and not _is_told(test.nodes):
            yield Finding(guards[0], ast.unparse(guards[0].test))


def _guard(code: Code, node: ast.AST, answers: set[str]) -> ast.If | None:
    """The `if` on an answer that an assertion stands below, where there is no other branch."""
    for around in of_kind(ast.If, code.around_of(node)):
        if not around.orelse and names_in(around.test) & answers:
            return around
    return None


@rule("ARD506", "failed-assertion-swallowed", "except")
def failed_assertion_swallowed(code: Code) -> Findings:
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
    for node in code.in_tests(ast.Try):
        asserts = any(of_kind(ast.Assert, node.body))
        for handler in filter(_swallows, node.handlers if asserts else ()):
            yield Finding(node, ast.unparse(handler).partition("\n")[0])


def _swallows(handler: ast.ExceptHandler) -> bool:
    nodes = all_below(*handler.body)
    caught = (
        handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    )
    broad = {dotted(each) for each in caught} & {
        "",
        "Exception",
        "BaseException",
        "AssertionError",
    }
    ends = any(
        isinstance(e, ast.Raise | ast.Assert | ast.Return | ast.Continue) for e in nodes
    )
    skips = any(
        re.search(r"(?:^|\.)(?:skip|xfail|exit|append)$", e) for e in call_names(nodes)
    )
    return bool(broad) and not ends and not skips and not _is_told(nodes)


@rule("ARD507", "success-or-failure", *_COMPARED)
def success_or_failure(code: Code) -> Findings:
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
    for node in code.in_tests(ast.Assert):
        is_plain = isinstance(node.test, ast.Compare) and len(node.test.ops) == 1
        if is_plain and _takes_both(ast.unparse(node.test)):
            yield Finding(node, ast.unparse(node.test))


def _takes_both(comparison: str) -> bool:
    """Whether a comparison of a status is true of a success and of a failure."""
    if not (found := _BOTH.fullmatch(comparison)):
        return False
    kinds = set(re.findall(r"\b(?:HTTP_)?([245])\d\d(?:_|\b)", found["any"] or ""))
    return bool(found["limit"]) or ("2" in kinds and len(kinds) > 1)


@rule("ARD601", "id-guessed", '["id"] ==', "['id'] ==")
def id_guessed(code: Code) -> Findings:
    """A test asserts an id that the database has chosen.

    A sequence gives another number as soon as a test before it, or a row of the seed, has taken
    one.

    Instead: the id that the answer or the object has: `dancer.id`, `response.json()["id"]`. With
    pytest-arena sequences are taken back as well, and begin at one number in every test.

    Fails:

        def test_create(client):
            response = client.post("/dancers", json={"name": "ada"})
            assert response.json()["id"] == 1

    Passes:

        def test_create(client, dancer):
            response = client.get(f"/dancers/{dancer.id}")
            assert response.json()["id"] == dancer.id
    """
    for test in code.tests:
        created = any(
            re.search(r"\bpost$", each) for each in call_names(test.own_nodes)
        )
        known = re.search(
            r"""["']id["']\s*:|\bid=|_id=|/\d+\b""", ast.unparse(test.node)
        )
        for node in (
            of_kind(ast.Assert, test.own_nodes) if created and not known else ()
        ):
            guess = re.search(r"\['id'\] == \d+$", ast.unparse(node.test))
            if guess and isinstance(node.test, ast.Compare):
                yield Finding(node, ast.unparse(node.test))


@rule("ARD602", "sleep", "sleep(")
def sleep(code: Code) -> Findings:
    """A test sleeps.

    On a slow machine it is too short, and on all others too long.

    Instead: wait for what is meant: with pytest-arena `await arena.settled()` for work that a
    request has begun. Without it: an event, or a loop with a limit that asks for the result.

    Fails:

        import asyncio

        async def test_mail(client):
            await client.post("/orders")
            await asyncio.sleep(0.5)
            assert mails

    Passes:

        async def test_mail(client, arena):
            await client.post("/orders")
            await arena.settled()
            assert mails
    """
    for call in code.called("sleep"):
        test = code.own_test_of(call)
        slept = code.origin(call.func) in {"time.sleep", "asyncio.sleep", "anyio.sleep"}
        long = re.search(r"\((?=[^,)]*[1-9])[\d.e-]+[,)]", ast.unparse(call))
        meant = any(map(_is_loop_or_limit, code.around_of(call)))
        if test and len(test.node.body) > 1 and slept and long and not meant:
            yield Finding(call, ast.unparse(call))


def _is_loop_or_limit(node: ast.AST) -> bool:
    """Whether a sleep in it asks again and again, or is what is to be cut short."""
    if isinstance(node, AnyWith):
        entered = " ".join(ast.unparse(each.context_expr) for each in node.items)
        return bool(re.search(r"raises|cancel|shield|timeout|_after|deadline", entered))
    return isinstance(node, ast.While | ast.For | ast.AsyncFor)
