"""What is noted of one try of one test, while it runs?"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import cache
from uuid import UUID

from pytest_arena._ledger import Request
from pytest_arena.scenarios.specs._specification import Kind, ScenarioSpec

PLAIN = (str, int, float, Decimal, date, time, Enum, UUID)
"""What has a text that says its value. Others' may be long, or ask a database for what it says."""
# A test that is watched has to be the same test: what it lets go of must not live on here.
_KEPT = (*PLAIN, dict, list, tuple, set)


@dataclass(slots=True, eq=False)
class Heard:
    """The assertions at one place that passed."""

    place: str
    text: str
    after: int
    times: int = 0
    values: list[object] = field(default_factory=list)  # of the last time
    is_constant: bool = False  # whether it could not have failed


@dataclass(slots=True, eq=False)
class Block:
    """One step block of a test, while it stands and afterwards."""

    kind: Kind
    places: tuple[tuple[str, int], ...]  # the scenario's key, and the step's place in it
    wrote: int = 0
    assertions: int = 0
    requests: tuple[int, ...] = ()
    is_open: bool = True


@dataclass(slots=True, eq=False)
class Log:
    """One try. Any thread of the test's may add to it; nobody takes anything out meanwhile."""

    scenarios: tuple[ScenarioSpec, ...]
    fixture_names: frozenset[str]
    in_call: bool = False
    requests: list[Request] = field(default_factory=list)
    logins: list[Request] = field(default_factory=list)
    of_others: set[Request] = field(default_factory=set)  # by no client of ours, under way
    answered: int = 0
    heard: dict[tuple[str, str], Heard] = field(default_factory=dict)
    assertions: int = 0  # that passed, and could have failed
    blocks: list[Block] = field(default_factory=list)
    off: dict[str, str] = field(default_factory=dict)
    has_asked_another: bool = False  # an app that is not the one under test

    @property
    def is_preparing(self) -> bool:
        """Whether a request that begins now prepares for what the test is about."""
        return not self.in_call or any(one.is_open and one.kind == "given" for one in self.blocks)

    @property
    def first(self) -> int:
        """The place of the first request that is no preparation; of the first, where all are."""
        places = [place for place, one in enumerate(self.requests) if not one.is_preparation]
        return places[0] if places else 0

    @property
    def has_asserted(self) -> bool:
        """Whether an assertion that could fail has passed since the last request."""
        last = len(self.requests)
        return any(one.after >= last and not one.is_constant for one in self.heard.values())

    def passed(
        self, place: str, text: str, values: Sequence[object], *, is_idle: bool = False
    ) -> None:
        """An assertion has passed."""
        one = self.heard.get((place, text))
        if one is None:
            one = Heard(place, text, self.answered, is_constant=is_idle or is_constant(text))
            self.heard[place, text] = one
        one.times += 1
        one.after = max(one.after, self.answered)
        one.values = [value for value in values if isinstance(value, _KEPT)]
        self.assertions += not one.is_constant

    def let_go(self) -> None:
        """The call is over: what the test still holds is nobody's any more."""
        for one in self.heard.values():
            one.values = []


# Most assertions ask something, and compare it with what is written as no name.
_ASKS = re.compile(r"[\w)\]]\s*[.(\[]")
_DOUBTFUL = re.compile(r"\bor\b|\bself\s*\.\s*assert|^\s*(?:assert\b\s*)?\(|[=!]=\s*[A-Za-z_]")


@cache
def is_constant(text: str) -> bool:
    """Whether it says nothing about the app: ``True``, ``1 == 1``, ``x == x``, ``"text"``.

    What cannot be read is none. Costs 50 µs, once for each text, but 1 µs for most.
    """
    if _ASKS.search(text) and not _DOUBTFUL.search(text):
        return False
    try:
        expression = ast.parse(f"({text})", mode="eval").body  # it may be of several lines
    except (SyntaxError, ValueError, RecursionError):
        return False
    return _is_constant(expression)


def _is_constant(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(op=ast.Or(), values=values):
            is_always_true = any(isinstance(one, ast.Constant) and one.value for one in values)
            return is_always_true or all(map(_is_constant, values))
        case ast.BoolOp(values=values):
            return all(map(_is_constant, values))
        case ast.Tuple(elts=elements) if elements:  # `assert (x, "message")`
            return True
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if _is_same(left, right):
            return not isinstance(operator, ast.NotEq | ast.Lt | ast.Gt | ast.IsNot | ast.NotIn)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self")), args=args) if args:
            return all(map(_is_constant, args)) or (
                len(args) > 1 and _is_same(args[0], args[1]) and "Equal" in ast.unparse(node.func)
            )
    return not any(isinstance(one, _TELLING) for one in ast.walk(node))


_TELLING = (ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.Await, ast.NamedExpr)


def _is_same(left: ast.expr, right: ast.expr) -> bool:
    """Both sides alike, and nothing is called: two calls may give two answers."""
    calls = (ast.Call, ast.Await, ast.NamedExpr)
    is_called = any(isinstance(one, calls) for one in ast.walk(left))
    return not is_called and ast.dump(left) == ast.dump(right)
