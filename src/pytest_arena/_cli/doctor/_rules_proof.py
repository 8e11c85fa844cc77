"""Tests that pass whatever the app does."""

import ast
import re
from collections.abc import Iterable

from pytest_arena._cli.doctor._code import (
    AnyWith,
    Code,
    SuiteFunction,
    all_below,
    arguments,
    call_names,
    dotted,
    keyword,
    names_in,
    of_kind,
    target_of,
)
from pytest_arena._cli.doctor._rule import Finding, Findings, rule

_MOCKS = ("Mock", "MagicMock", "AsyncMock", "NonCallableMock", "create_autospec")
_SESSION_TYPE = re.compile(
    r"(?:sqlalchemy|sqlmodel).*\.(?:Session|AsyncSession|scoped_session)"
)
_SESSION = re.compile(
    r"(?i)(?:^|_)(?:db|database|async|sql|sa)_?session(?:_mock)?$|^(?:mock_)?db(?:_mock)?$"
)
_REQUEST = re.compile(
    r"(?i).*client(?:_\w+)?\.(?-i:get|post|put|patch|delete|request|options|head)"
)
_ASSERTS = re.compile(
    r"(?i)assert|expect|check|verif|valid|should|must|raises|warns|ensure|compare|match|fail|snapshot|approve|raise_for_status|benchmark"
)
_COMPARED = ("status_code in", "status_code <", "status_code !=", ".status in")
_BELOW_500 = re.compile(r".*\.status(?:_code)? (?:<=?|!=) [5-9]\d\d")
_ONE_OF = re.compile(r".*\.status(?:_code)? in [\[({](.*)[\])}]")
_ENDS = ast.Raise | ast.Assert | ast.Return | ast.Continue


@rule("ARD501", "session-mocked", *_MOCKS, solved_by_arena=True)
def session_mocked(code: Code) -> Findings:
    """A mock replaces the database session.

    The mock accepts every statement and enforces no constraint, type, table or commit. The test
    only proves that the code calls some methods.

    Instead: use `db_session` of pytest-arena. It is a real session, and costs about as much time
    as one query.

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
    uses_sqlalchemy = "sqlalchemy" in code.text + code.project.conftests
    for call in code.called(*_MOCKS):
        spec = keyword(call, "spec") or keyword(call, "spec_set")
        if spec is None and call.args:
            spec = call.args[0]
        name = target_of(code.parents[call])
        is_session = _SESSION_TYPE.fullmatch(code.origin(spec))
        if spec is None and uses_sqlalchemy:
            is_session = _SESSION.search(name)
        if is_session:
            yield Finding(call, name)


def _requests(test: SuiteFunction) -> list[ast.Call]:
    """Return the requests that a test sends."""
    return [
        call
        for call in of_kind(ast.Call, test.own_nodes)
        if call.args and _REQUEST.fullmatch(dotted(call))
    ]


def _answers(code: Code, test: SuiteFunction) -> set[str]:
    """Return the variables that hold the answers to a test's requests."""
    answers = set()
    for request in _requests(test):
        parent = code.parents[request]
        if isinstance(parent, ast.Await):
            parent = code.parents[parent]
        answers.add(target_of(parent))
    return answers


def _calls_assertion(nodes: Iterable[ast.AST]) -> bool:
    """Return whether these nodes call a function that may assert something."""
    return any(map(_ASSERTS.search, call_names(nodes)))


@rule("ARD504", "nothing-asserted", "client")
def nothing_asserted(code: Code) -> Findings:
    """A test sends requests and checks no answer.

    A 404 and a 500 are answers, too. The test passes with each of them.

    Instead: assert the status (`assert response.status_code == 201`) and what the request changed.

    Fails:

        def test_create(client):
            client.post("/dancers", json={"name": "ada"})

    Passes:

        def test_create(client):
            response = client.post("/dancers", json={"name": "ada"})
            assert response.status_code == 201
    """
    for test in code.tests:
        function = test.node
        if not _requests(test) or _calls_assertion(test.nodes):
            continue
        if any(isinstance(node, ast.Assert | ast.Raise) for node in test.nodes):
            continue
        # A helper that gets an answer, a mark or a decorator may assert.
        passed: set[str] = set()
        for call in of_kind(ast.Call, test.nodes):
            passed |= names_in(*arguments(call))
        decorators = " ".join(map(ast.unparse, function.decorator_list))
        is_marked = re.search(r"\bmark\w*(?:\(| |$)|raises", decorators)
        if not is_marked and passed.isdisjoint(_answers(code, test)):
            yield Finding(function, function.name)


@rule("ARD505", "asserted-only-if", "if response", "if resp", ".status_code == ")
def asserted_only_if(code: Code) -> Findings:
    """All assertions of a test are inside an `if` that depends on the app's answer.

    With another answer, the test asserts nothing and passes, even if the app is broken.

    Instead: assert the condition first, as in `assert response.status_code == 200`. Then assert
    the rest without `if`.

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
        guards = [_guard(code, node, answers) for node in asserts]
        if None in guards or _calls_assertion(test.nodes):
            continue
        first = next(iter(guards), None)
        if first is not None:
            yield Finding(first, ast.unparse(first.test))


def _guard(code: Code, node: ast.AST, answers: set[str]) -> ast.If | None:
    """Return the `if` without `else` around an assertion whose condition uses an answer."""
    for block in of_kind(ast.If, code.ancestors_of(node)):
        condition_names = names_in(block.test)
        if not block.orelse and condition_names & answers:
            return block
    return None


@rule("ARD506", "failed-assertion-swallowed", "except")
def failed_assertion_swallowed(code: Code) -> Findings:
    """A `try` statement catches the failure of an assertion.

    `AssertionError` is an `Exception`. The test passes although the assertion fails.

    Instead: remove the `try`. If the test expects an error, write `with pytest.raises(TheError):`.

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
        if any(of_kind(ast.Assert, node.body)):
            for handler in filter(_swallows, node.handlers):
                line, *_ = ast.unparse(handler).splitlines()
                yield Finding(node, line)


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler catches `AssertionError` and lets the test pass."""
    caught = ast.unparse(handler.type) if handler.type else "Exception"
    if not re.search(r"\b(?:Base)?Exception\b|\bAssertionError\b", caught):
        return False
    nodes = all_below(*handler.body)
    ends = any(isinstance(node, _ENDS) for node in nodes)
    calls = " ".join(call_names(nodes))
    skips = re.search(r"\b(?:skip|xfail|exit|append)\b", calls)
    return not ends and not skips and not _calls_assertion(nodes)


@rule("ARD507", "success-or-failure", *_COMPARED)
def success_or_failure(code: Code) -> Findings:
    """An assertion accepts both a success and a failure.

    The test passes with either answer, so it does not prove that the app did its work.

    Instead: assert the one right status, as in `assert response.status_code == 201`.

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
        condition = node.test
        if not isinstance(condition, ast.Compare) or len(condition.ops) > 1:
            continue
        text = ast.unparse(condition)
        if _accepts_both(text):
            yield Finding(node, text)


def _accepts_both(comparison: str) -> bool:
    """Return whether a comparison of a status accepts a success and a failure."""
    if _BELOW_500.fullmatch(comparison):
        return True
    listed = _ONE_OF.fullmatch(comparison)
    if listed is None:
        return False
    kinds = set(re.findall(r"\b(?:HTTP_)?([245])\d\d(?:_|\b)", listed[1]))
    return "2" in kinds and len(kinds) > 1


@rule("ARD602", "sleep", "sleep(")
def sleep(code: Code) -> Findings:
    """A test sleeps.

    The time is too short on a slow machine, and too long on all others.

    Instead: wait for the result. With pytest-arena, `await arena.settled()` waits for the work
    that requests started. Without pytest-arena, wait for an event, or check the result in a
    loop with a time limit.

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
        if test is None or len(test.node.body) == 1:
            continue
        is_sleep = code.origin(call) in {"time.sleep", "asyncio.sleep", "anyio.sleep"}
        is_long = re.search(r"\((?=[^,)]*[1-9])[\d.e-]+[,)]", ast.unparse(call))
        is_intended = any(map(_is_loop_or_limit, code.ancestors_of(call)))
        if is_sleep and is_long and not is_intended:
            yield Finding(call)


def _is_loop_or_limit(node: ast.AST) -> bool:
    """Return whether a block repeats its sleep, or expects the sleep to be cancelled."""
    if isinstance(node, AnyWith):
        entered = " ".join(map(ast.unparse, node.items))
        return bool(re.search(r"raises|cancel|shield|timeout|_after|deadline", entered))
    return isinstance(node, ast.While | ast.For | ast.AsyncFor)
