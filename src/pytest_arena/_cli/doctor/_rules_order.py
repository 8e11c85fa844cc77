"""Tests that hang on other tests, on time, or on what is outside."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import call_names, dotted, keyword, names_in
from pytest_arena._cli.doctor._rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._code import Code, Function

_CHANGES = {"append", "add", "update", "extend", "insert", "setdefault"}


@rule("ARD601", "id-guessed", words=('["id"] ==', "['id'] =="))
def id_guessed(code: Code) -> Iterator[Finding]:
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
        created = "post" in call_names(test.own_nodes)
        given = re.search(r"""["']id["']\s*:|\bid=|_id=|/\d+\b""", ast.unparse(test.node))
        for node in test.own_nodes if created and not given else ():
            if isinstance(node, ast.Assert) and _is_of_an_id(node.test):
                yield Finding(node, ast.unparse(node.test))


def _is_of_an_id(test: ast.expr) -> bool:
    """Whether `…["id"] == 1` is asserted."""
    match test:
        case ast.Compare(
            left=ast.Subscript(slice=ast.Constant(value="id")),
            ops=[ast.Eq()],
            comparators=[ast.Constant(value=int(number))],
        ):
            return number is not True
    return False


@rule("ARD602", "sleep", words=("sleep(",))
def sleep(code: Code) -> Iterator[Finding]:
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
        test = code.test_of(call)
        own = test is not None and code.function_of(call) is test.node
        meant = any(map(_is_loop_or_limit, code.around_of(call)))
        slept = code.origin(call.func) in {"time.sleep", "asyncio.sleep", "anyio.sleep"}
        if test and own and slept and not meant and _seconds(call) and len(test.node.body) > 1:
            yield Finding(call, ast.unparse(call))


def _is_loop_or_limit(node: ast.AST) -> bool:
    """Whether a sleep in it asks again and again, or is what is to be cut short."""
    if isinstance(node, ast.With | ast.AsyncWith):
        entered = " ".join(ast.unparse(each.context_expr) for each in node.items)
        return bool(re.search(r"raises|cancel|shield|timeout|_after|deadline", entered))
    return isinstance(node, ast.While | ast.For | ast.AsyncFor)


def _seconds(call: ast.Call) -> float:
    """How long a sleep is, where that is written down."""
    match call.args:
        case [ast.Constant(value=int() | float() as seconds)]:
            return seconds
    return 0


@rule("ARD603", "numbered-tests", words=("def test_0", "def test_1", "def test_2"), ended=False)
def numbered_tests(code: Code) -> Iterator[Finding]:
    """Tests are numbered: each needs what the one before it has left.

    One alone cannot be run, a failure takes all later ones along, and pytest-xdist or a random
    order breaks them.

    Instead: a fixture for what they share, or one test with all steps. With pytest-arena a module-
    or class-scoped fixture's rows are whole again before each test.

    Fails:

        def test_1_create(client):
            assert client.post("/dancers").status_code == 201

        def test_2_read(client):
            assert client.get("/dancers/1").status_code == 200

    Passes:

        def test_create(client):
            assert client.post("/dancers").status_code == 201

        def test_read(client, dancer):
            assert client.get(f"/dancers/{dancer.id}").status_code == 200
    """
    groups: dict[ast.ClassDef | None, dict[int, Function]] = defaultdict(dict)
    for test in code.tests:
        if found := re.match(r"test_0*(\d{1,2})_[a-z]", test.node.name):
            groups[test.owner][int(found[1])] = test
    for numbers in groups.values():
        if {1, 2} <= numbers.keys():
            yield Finding(numbers[2].node, numbers[2].node.name)


@rule("ARD604", "order-declared", words=("mark.order", "mark.run(", "mark.dependency"))
def order_declared(code: Code) -> Iterator[Finding]:
    """A mark says in which order tests are to run.

    They share a state, then: one alone cannot be run, and a failure takes all later ones along.

    Instead: a fixture for what they share. With pytest-arena a module- or class-scoped fixture's
    rows are whole again before each test.

    Fails:

        import pytest

        @pytest.mark.order(2)
        def test_read(client):
            assert client.get("/dancers/1").status_code == 200

    Passes:

        def test_read(client, dancer):
            assert client.get(f"/dancers/{dancer.id}").status_code == 200
    """
    for test in code.tests:
        for mark in test.node.decorator_list:
            name = dotted(mark)
            depends = name == "pytest.mark.dependency" and keyword(mark, "depends") is not None
            if (
                depends
                or name == "pytest.mark.order"
                or (name == "pytest.mark.run" and keyword(mark, "order"))
            ):
                yield Finding(mark, ast.unparse(mark))


@rule(
    "ARD605", "state-between-tests", words=("global ", "= {}\n", "= []\n", "= None\n", "= set()\n")
)
def state_between_tests(code: Code) -> Iterator[Finding]:
    """A test leaves something in a variable of the module for another one.

    The other one alone fails, and so does each with pytest-xdist or a random order.

    Instead: a fixture that makes it and returns it; for rows, with pytest-arena, one of a module's
    or a class's scope.

    Fails:

        created = {}

        def test_create(client):
            created["id"] = client.post("/dancers").json()["id"]

        def test_read(client):
            assert client.get(f"/dancers/{created['id']}").status_code == 200

    Passes:

        import pytest

        @pytest.fixture
        def dancer_id(client):
            return client.post("/dancers").json()["id"]

        def test_read(client, dancer_id):
            assert client.get(f"/dancers/{dancer_id}").status_code == 200
    """
    empty = {name for statement in code.tree.body for name in _empty_at_first(statement)}
    for name in sorted(empty):
        writers = {
            t: node for t in code.tests for node in t.own_nodes if _writes(t.own_nodes, node, name)
        }
        readers = [
            t for t in code.tests if name in {e.id for e in t.own_nodes if isinstance(e, ast.Name)}
        ]
        resets = any(name in names_in(each.node) for each in code.fixtures)
        if writers and set(readers) - set(writers) and not resets:
            test, node = next(iter(writers.items()))
            if not {"clear"} & call_names(test.own_nodes):
                yield Finding(node, name)


def _empty_at_first(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            if ast.unparse(value) in {"{}", "[]", "None", "dict()", "list()", "set()"}:
                yield name


def _writes(nodes: list[ast.AST], node: ast.AST, name: str) -> bool:
    """Whether a node of a test changes what a name of the module stands for."""
    match node:
        case ast.Subscript(value=ast.Name(id=changed), ctx=ast.Store()):
            return changed == name
        case ast.Call(func=ast.Attribute(value=ast.Name(id=changed), attr=method)):
            return changed == name and method in _CHANGES
        case ast.Name(id=changed, ctx=ast.Store()):
            return changed == name and any(
                isinstance(e, ast.Global) and name in e.names for e in nodes
            )
    return False
