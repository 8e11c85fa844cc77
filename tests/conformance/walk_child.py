"""The run under a random walk: a real pytest that does, at each pause, what it is told.

It pauses between tests, and inside of each test, set-up and tear-down. A command is a line of
JSON on its standard input, an answer one on its standard output, after a mark.
"""

from __future__ import annotations

__all__ = ["FILES", "MARK"]

MARK = "@arena@"

# What a process can do with a database; the other process, which knows no arena, has it as well.
_HANDS = """
import asyncio
import json
import sys
import traceback
from sqlalchemy import create_engine, insert, inspect, select, text, update
from sqlalchemy.pool import NullPool
from app import Dancer

MARK = "@arena@"


def tell(**answer):
    sys.stdout.write("\\n" + MARK + json.dumps(answer) + "\\n")
    sys.stdout.flush()


class Hand:
    def __init__(self, engine):
        self.engine, self.connection, self.savepoints = engine, None, []

    def do(self, name, *values):
        if self.connection is None:
            self.connection = self.engine.connect()
        return getattr(self, name)(*values)

    def insert(self, name):
        done = self.connection.execute(insert(Dancer.__table__).values(
            name=name, style="", version=1))
        return done.inserted_primary_key[0]

    def update(self, number, style):
        self.connection.execute(update(Dancer.__table__).where(
            Dancer.id == number).values(style=style))

    def delete(self, number):
        self.connection.execute(Dancer.__table__.delete().where(Dancer.id == number))

    def ddl(self, verb, name):
        columns = " (a integer)" if verb == "create" else ""
        self.connection.execute(text(f"{verb} table {name}{columns}"))
        self.connection.commit()

    def savepoint(self):
        self.savepoints.append(self.connection.begin_nested())

    def back(self):
        self.savepoints.pop().rollback()

    def commit(self):
        self.savepoints.clear()
        self.connection.commit()

    def rollback(self):
        self.savepoints.clear()
        self.connection.rollback()

    def close(self):
        self.savepoints.clear()
        connection, self.connection = self.connection, None
        connection.close()


class AsyncHand(Hand):
    '''The same over an async engine, in a loop that may be another one each time.'''

    runner = asyncio.Runner()

    def do(self, name, *values):
        if name == "loop":
            self.runner.close()
            AsyncHand.runner = asyncio.Runner()
            return None
        return self.runner.run(self.ado(name, *values))

    async def ado(self, name, *values):
        if self.connection is None:
            self.connection = await self.engine.connect()
        if name in {"commit", "rollback", "close"}:
            self.savepoints.clear()
            connection = self.connection
            self.connection = None if name == "close" else connection
            return await getattr(connection, name)()
        inner = Hand(None)
        inner.savepoints = self.savepoints

        def work(connection):
            inner.connection = connection
            return getattr(inner, name)(*values)
        return await self.connection.run_sync(work)


def look(engine):
    with engine.connect() as connection:
        tables = sorted(inspect(connection).get_table_names())
        rows = connection.execute(select(Dancer.id, Dancer.name, Dancer.style))
        return {"tables": tables, "dancers": {str(row[0]): [row[1], row[2]] for row in rows}}


def obey(hands, engine, command):
    try:
        if command["do"] == "look":
            return tell(ok=look(engine))
        tell(ok=hands[command["hand"]].do(command["do"], *command.get("values", ())))
    except Exception as error:
        tell(error="".join(traceback.format_exception(error)[-12:]))
"""

_OTHER = """
import json
import sys
from hands import Hand, NullPool, create_engine, obey, tell

# What it is connected to may be gone, and its connection with it: the next one is a new one.
class Other(Hand):
    def go_to(self, url):
        self.engine, self.connection = create_engine(url, poolclass=NullPool), None
        self.savepoints.clear()


hands = {"other": Other(None)}
tell(at="ready")
for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "go_to":
        hands["other"].go_to(command["values"][0])
        tell(ok=None)
    else:
        obey(hands, None, command)
"""

_CONFTEST = """
import json
import sys

import app
import pytest
import setting
from hands import AsyncHand, Hand, NullPool, create_engine, obey, tell

engine = create_engine(setting.SYNC_URL)
fresh = create_engine(setting.SYNC_URL, poolclass=NullPool)
AppHand = AsyncHand if hasattr(app.engine, "sync_engine") else Hand
hands = {"app": AppHand(app.engine), "second": Hand(engine)}
reports = []
ARENA = []


def url():
    return setting.SYNC_URL.partition(":")[0] + ":" + ARENA[0].url.partition(":")[2]


class Told(Exception):
    pass


def pause(at, **more):
    if at == "teardown":  # what the test has left is gone
        forget_all()
    tell(at=at, **more)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "go":
            if command.get("fail"):
                raise Told("as it was told")
            return
        if command["do"] == "url":
            tell(ok=url())
        else:
            obey(hands, fresh, command)
    raise KeyboardInterrupt


def wide(name, scope):
    @pytest.fixture(scope=scope, name=name)
    def fixture(request):
        pause("setup", name=name)
        yield
        pause("teardown", name=name)
    return fixture


session_one = wide("session_one", "session")
session_two = wide("session_two", "session")
module_one = wide("module_one", "module")
module_two = wide("module_two", "module")
class_one = wide("class_one", "class")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        reports.append(f"{report.when}: {report.longreprtext}")
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    items = {item.nodeid: item for item in session.items}
    tell(at="idle", items=sorted(items), reports=[])
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "run":
            item, following = items[command["item"]], items.get(command["next"])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            forget_all()
            tell(at="idle", reports=reports[:])
            reports.clear()
        else:
            obey(hands, fresh, command)
    return True


def forget_all():
    for hand in hands.values():
        if hand.connection is not None:
            try:
                hand.do("close")
            except Exception:
                hand.connection = None
"""

_TESTS = """
from conftest import pause


def test_alone():
    pause("test")


def test_module(module_one):
    pause("test")


def test_both(session_one, module_two):
    pause("test")


def test_late(module_one, session_two):
    pause("test")


class TestClass:
    def test_class(self, class_one):
        pause("test")

    def test_all(self, session_two, module_one, class_one):
        pause("test")
"""

_URL = """


def test_arena(arena):
    import conftest
    conftest.ARENA.append(arena)
    pause("test")
"""

FILES = {
    "hands.py": _HANDS,
    "other.py": _OTHER,
    "conftest.py": _CONFTEST,
    "test_a.py": _TESTS + _URL,
    "test_b.py": _TESTS,
}
