"""What does pytest-bdd tell of its tests, and which of its steps were never awaited?"""

from __future__ import annotations

import dis
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._values import CodeLine
from pytest_arena.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXAMPLE", "Template", "Unawaited", "template_of"]

EXAMPLE = "_pytest_bdd_example"
"""The argument by which pytest-bdd hands a row of the Examples to its test."""

_MODULE = "pytest_bdd.scenario"


@dataclass(frozen=True, slots=True)
class Template:
    """The scenario that pytest-bdd has made a test from."""

    name: str
    """With its feature's and its rule's: ``Battles :: The rule :: It starts``."""
    file: Path


def template_of(item: Any) -> Template | None:
    """Return the scenario of a test that pytest-bdd has made; None for any other test.

    Guarded: the registry that says it is private to pytest-bdd.
    """
    registry = getattr(sys.modules.get(_MODULE), "scenario_wrapper_template_registry", None)
    function = getattr(item, "obj", None)
    function = getattr(function, "__func__", function)
    if registry is None or function is None:
        return None
    try:
        template = registry.get(function)
        return None if template is None else _template(template)
    except (AttributeError, TypeError):  # another version of it, or what no weak reference takes
        return None


def _template(one: Any) -> Template:
    rule = getattr(getattr(one, "rule", None), "name", "")
    names = [one.feature.name, rule, one.name] if one.feature.name else [one.name]
    return Template(" :: ".join(filter(None, names)), Path(one.feature.filename))


class Unawaited:
    """The coroutines that steps have returned, which pytest-bdd calls and never awaits.

    A step may hand its coroutine on as a fixture, and another one may run it: so they are judged
    when the test has ended.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Any, Any]] = []
        self._original: Callable[..., Any] | None = None

    def watch(self) -> str:
        """Begin to look at what steps return, once. Returns why that cannot be done, else ""."""
        module = sys.modules.get(_MODULE)
        if module is None or self._original is not None:
            return ""
        self._original = getattr(module, "call_fixture_func", None)
        if self._original is None:
            return (
                "this version of pytest-bdd calls its steps in another way: "
                "one that returns a coroutine may pass without having run"
            )
        module.call_fixture_func = self._called  # type: ignore[attr-defined]  # looked for above
        return ""

    def unwatch(self) -> None:
        """Put back what ``watch`` has replaced."""
        if self._original is not None:
            sys.modules[_MODULE].call_fixture_func = self._original  # type: ignore[attr-defined]  # found by watch
            self._original = None

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        assert self._original is not None, "it is called in the original's place"  # noqa: S101 - for the type checker
        result = self._original(*args, **kwargs)
        if inspect.iscoroutine(result) or inspect.isasyncgen(result):
            step = kwargs.get("fixturefunc", args[0] if args else None)
            self._made.append((step, result))
        return result

    def take(self) -> ScenarioError | None:
        """Return the error for the steps of the test that has just ended, if one never ran."""
        made, self._made = self._made, []
        forgotten = [step for step, result in made if _never_ran(result)]
        return _error(forgotten) if forgotten else None


def _never_ran(result: Any) -> bool:
    if inspect.isasyncgen(result):
        return _not_begun(result)
    if inspect.getcoroutinestate(result) != inspect.CORO_CREATED:
        return False
    result.close()  # else Python warns of it, wherever it is collected
    return True


def _not_begun(result: Any) -> bool:
    if (state := getattr(inspect, "getasyncgenstate", None)) is not None:  # Python 3.12
        return bool(state(result) == "AGEN_CREATED")
    made = (one.offset for one in dis.get_instructions(result.ag_code) if one.opname == _MADE)
    return result.ag_frame is not None and result.ag_frame.f_lasti <= next(made, 0)


_MADE = "RETURN_GENERATOR"  # the last that a function does of itself, before it is asked for more


def _error(steps: list[Any]) -> ScenarioError:
    names = ", ".join(dict.fromkeys(f"{_name(step)}()" for step in steps))
    first = inspect.unwrap(steps[0])
    code = getattr(first, "__code__", None)
    place = str(CodeLine(code.co_filename, code.co_firstlineno)) if code else _name(first)
    return ScenarioError(
        f"the step function {names} returned a coroutine that nobody awaited: it never ran",
        why="pytest-bdd calls its steps and awaits none, so that the test passes whatever they say",
        cause=place,
        fix="make it a def; or make the scenario a plain async test, marked with "
        "@pytest.mark.scenario(…)",
    )


def _name(step: Any) -> str:
    return str(getattr(step, "__name__", step))
