"""Maps tests to the scenarios that they prove."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import re
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from pytest_arena._config._load import is_library
from pytest_arena._others import own_function
from pytest_arena._values import CodeLine
from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios._tries import skip_reason
from pytest_arena.scenarios.assertions._test_files import function_of
from pytest_arena.scenarios.evidence._document import Mapping, from_shape, to_shape
from pytest_arena.scenarios.specs._index import (
    Index,
    Reference,
    identifier,
    reference,
    row_proven,
)
from pytest_arena.scenarios.specs._reader import relative
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    Problem,
    ScenarioSpec,
    Specification,
    step_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pytest


_BDD = "pytest_bdd.scenario"
_BDD_CALL = re.compile(r"\bscenarios?\(")
_INTERRUPTED = 2  # pytest's exit status


@dataclass(frozen=True, slots=True)
class Mapped:
    """One test, with the scenarios that its markers name."""

    item: pytest.Item
    """This reference keeps the item alive, so that its identity stays unique."""
    test: str
    """The node id at collection. A plugin may change the item's node id later."""
    mappings: tuple[Mapping, ...]
    scenarios: tuple[ScenarioSpec, ...]
    errors: tuple[tuple[str, ScenarioError], ...]
    """The errors of markers. The key is "" if the marker names no scenario."""
    markers: int
    """How many markers the test had when it was mapped."""


class Mapper:
    """Reads the markers of tests. Tests of pytest-bdd need no marker."""

    def __init__(
        self,
        specification: Specification,
        index: Index,
        root: Path,
    ) -> None:
        self._index = index
        self._root = root
        self._files = frozenset(specification.files)
        self._items: Sequence[pytest.Item] = ()
        self._named: frozenset[str] | None = None

    def all_of(self, items: Sequence[pytest.Item]) -> list[Mapped]:
        """Return the tests that prove a scenario, or have a wrong marker."""
        self._items = items
        self._named = None
        mapped = map(self._map, items)
        return [test for test in mapped if test.mappings or test.errors]

    def _map(self, item: pytest.Item) -> Mapped:
        mappings = dict[Mapping, ScenarioSpec]()
        errors = []
        markers = list(item.iter_markers("scenario"))
        for marker in markers:
            key = ""
            try:
                wanted = reference(
                    marker.args,
                    marker.kwargs,
                    place=_line_of(item),
                )
                scenario = self._index.find(wanted, named=self._keys_named)
                key = scenario.key
                self._add(mappings, item, wanted, scenario)
            except ScenarioError as error:
                errors.append((key, error))
        template = _template_of(item)
        if template is not None:
            name, file = template
            spec = relative(file, self._root)
            wanted = Reference(
                name=name,
                spec=spec,
                place=_place(item),
            )
            # A malformed scenario is reported with its specification, not with this test.
            with suppress(ScenarioError):
                if spec in self._files:
                    scenario = self._index.find(wanted, named=self._keys_named)
                    self._add(mappings, item, wanted, scenario)
        scenarios = {scenario.key: scenario for scenario in mappings.values()}
        return Mapped(
            item=item,
            test=item.nodeid,
            mappings=tuple(mappings),
            scenarios=tuple(scenarios.values()),
            errors=tuple(errors),
            markers=len(markers),
        )

    def _add(
        self,
        mappings: dict[Mapping, ScenarioSpec],
        item: pytest.Item,
        wanted: Reference,
        scenario: ScenarioSpec,
    ) -> None:
        row = row_proven(scenario, wanted, _parameters(item))
        mapping = Mapping(
            test=item.nodeid,
            place=_place(item),
            scenario=scenario.key,
            row=row,
            unused=_unused_columns(item, scenario, row),
        )
        mappings.setdefault(mapping, scenario)

    def _keys_named(self) -> frozenset[str]:
        """Return the keys of the scenarios that markers name. Called only for a wrong marker."""
        if self._named is not None:
            return self._named
        named = set()
        for item in self._items:
            for marker in item.iter_markers("scenario"):
                if not marker.args:
                    continue
                scenario = self._index.only(Reference(name=str(marker.args[0])))
                if scenario:
                    named.add(scenario.key)
        self._named = frozenset(named)
        return self._named


def _line_of(item: pytest.Item) -> str:
    """Return the place and the code of the first line of a test."""
    place = _place(item)
    line = linecache.getline(str(item.path), int(place.rpartition(":")[2]))
    return f"{place}  {line.strip()}".strip()


def _place(item: pytest.Item) -> str:
    """Return the file and the first line of a test.

    For a test that pytest-bdd makes, this is the line that calls ``scenarios`` or ``scenario``.
    """
    file, line, _ = item.location
    number = (line or 0) + 1
    if is_library(str(item.config.rootpath / file)):
        file = relative(item.path, item.config.rootpath)
        number = _line_of_bdd(item.path)
    return f"{file}:{number}".replace("\\", "/")


def _line_of_bdd(path: Path) -> int:
    for number, line in enumerate(linecache.getlines(str(path)), 1):
        if _BDD_CALL.search(line):
            return number
    return 1


def _parameters(item: pytest.Item) -> dict[str, object]:
    """Return the parameters of a test, and the values of its row in pytest-bdd."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return {}
    values = dict(callspec.params)
    row = values.pop("_pytest_bdd_example", None)
    if isinstance(row, dict):
        values |= row
    return values


# Values of a row that its test ignores.

# A test that uses one of these names may read any argument.
_DYNAMIC = {"locals", "request"}


def _unused_columns(item: Any, scenario: ScenarioSpec, row: Pairs) -> tuple[str, ...]:
    """Return the columns whose values a test gets and ignores.

    The test has an argument or a loop variable with the name of the column. Neither the test nor a
    fixture reads it. Columns that no step names do not count.
    """
    code = getattr(inspect.unwrap(own_function(item)[2]), "__code__", None)
    if code is None or not row:
        return ()
    function = function_of(code)
    if function is None:
        return ()
    read = _read_names(function)
    if read & _DYNAMIC:
        return ()
    for fixtures in item._fixtureinfo.name2fixturedefs.values():  # noqa: SLF001 - no public name
        for fixture in fixtures:
            read.update(fixture.argnames, [getattr(fixture.func, "__name__", "")])
    unread = {*code.co_varnames, *code.co_cellvars} - read
    text = "\n".join(step_lines(scenario))
    columns = [column for column, _ in row if identifier(column) in unread]
    return tuple(column for column in columns if f"<{column}>" in text)


def _read_names(function: ast.AST) -> set[str]:
    """Return the variables that a function reads, except to print them or assert them alone."""
    idle: set[ast.AST] = set()
    for node in ast.walk(function):
        if _is_idle(node):
            idle.update(ast.walk(node))
    names = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Name) or node in idle:
            continue
        if isinstance(node.ctx, ast.Load):
            names.add(node.id)
    return names


def _is_idle(node: ast.AST) -> bool:
    """Return whether a statement prints or logs, or asserts something about one variable alone."""
    if isinstance(node, ast.Assert):
        names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        other = (ast.Attribute, ast.Await, ast.Subscript)
        has_other = any(isinstance(part, other) for part in ast.walk(node))
        return not has_other and len(names - vars(builtins).keys()) <= 1
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    called = ast.unparse(node.value.func).lower()
    return called == "print" or called.startswith("log")


# pytest-bdd.


def _template_of(item: pytest.Item) -> tuple[str, Path] | None:
    """Return the scenario from which pytest-bdd made a test, and its file.

    The name includes feature and rule: ``Battles :: The rule :: It starts``. The registry is
    private to pytest-bdd. After an error in it the function returns None.
    """
    module = sys.modules.get(_BDD)
    registry: Any = getattr(module, "scenario_wrapper_template_registry", None)
    function = getattr(item, "obj", None)
    try:
        template = registry.get(getattr(function, "__func__", function))
        rule = getattr(getattr(template, "rule", None), "name", "")
        feature = template.feature.name
        names = [feature, rule, template.name] if feature else [template.name]
        return " :: ".join(filter(None, names)), Path(template.feature.filename)
    except (AttributeError, TypeError):
        return None


class UnawaitedSteps:
    """The coroutines that steps of pytest-bdd returned. pytest-bdd does not await them.

    A step may return its coroutine as a fixture, and another step may await it. pytest-arena checks
    the coroutines when the test has ended.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Any, object]] = []  # steps with their coroutines
        self._patches = ExitStack()
        self._is_watching = False

    def watch(self) -> str:
        """Begin to record the coroutines of steps. Return why that is impossible, or ""."""
        module = sys.modules.get(_BDD)
        if module is None or self._is_watching:
            return ""
        original = getattr(module, "call_fixture_func", None)
        if original is None:
            return (
                "this version of pytest-bdd calls its steps in an unknown way, "
                "so a step that returns a coroutine may pass without running"
            )

        def call_and_record(*args: object, **kwargs: object) -> object:
            __tracebackhide__ = True
            result = original(*args, **kwargs)
            if inspect.iscoroutine(result) or inspect.isasyncgen(result):
                step = kwargs.get("fixturefunc", args[0] if args else None)
                self._made.append((step, result))
            return result

        self._is_watching = True
        patch = mock.patch.object(module, "call_fixture_func", call_and_record)
        self._patches.enter_context(patch)
        return ""

    def unwatch(self) -> None:
        """Restore the function that ``watch`` replaced."""
        self._patches.close()

    def take(self) -> ScenarioError | None:
        """Return the error of a test with a step that never ran, or None."""
        made = self._made
        self._made = []
        steps = [step for step, result in made if _never_ran(result)]
        if not steps:
            return None
        names = [str(getattr(step, "__name__", step)) for step in steps]
        calls = ", ".join(dict.fromkeys(f"{name}()" for name in names))
        code = getattr(inspect.unwrap(steps[0]), "__code__", None)
        cause = names[0]
        if code:
            cause = str(CodeLine(code.co_filename, code.co_firstlineno))
        return ScenarioError(
            f"the step function {calls} did not run: it returned a coroutine that was not awaited",
            why="pytest-bdd does not await its steps, so the test passes whatever they assert",
            cause=cause,
            fix="make it a plain def, or write the scenario as an async test that is marked with "
            "@pytest.mark.scenario(…)",
        )


def _never_ran(result: Any) -> bool:
    if inspect.isasyncgen(result):
        # pytest-bdd may begin a generator, but never continues it.
        return not result.ag_running and result.ag_frame is not None
    if inspect.getcoroutinestate(result) != inspect.CORO_CREATED:
        return False
    result.close()  # otherwise Python warns at garbage collection
    return True


# The collections of all processes.


class Mappings:
    """The mappings, wrong markers and test names that all processes collected.

    Each worker collects all tests and sends the same mappings.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """The node ids of mappings by the node ids of reports. Plugins may change the latter."""
        self.collectors = 0
        """How many processes have sent their collection."""
        self.problems: dict[Problem, None] = {}
        """Wrong markers, and files that were not collected."""
        self._is_deselected: dict[
            Mapping, bool
        ] = {}  # True if all processes deselected it

    def all(self) -> list[Mapping]:
        """Return the mappings."""
        return [
            replace(mapping, is_deselected=is_deselected)
            for mapping, is_deselected in self._is_deselected.items()
        ]

    def add(self, tests: Iterable[Mapped], *, selected: frozenset[int]) -> None:
        """Add the collection of this process.

        Args:
            tests: the collected tests.
            selected: the identities of the items that will run.
        """
        self.collectors += 1
        for test in tests:
            self.names[test.item.nodeid] = test.test
            for key, error in test.errors:
                problem = _wrong_marker(test.item, error, key)
                self.problems[problem] = None
            for mapping in test.mappings:
                self._add(mapping, is_deselected=id(test.item) not in selected)

    def note_late_marker(self, item: pytest.Item, mapped: Mapped | None) -> None:
        """Note that a test got a marker after it was mapped."""
        markers = list(item.iter_markers("scenario"))
        known = mapped.markers if mapped else 0
        if len(markers) > known:
            arguments = ", ".join(map(repr, markers[-1].args))
            error = ScenarioError(
                f"the marker scenario({arguments}) was added too late, while {item.name} ran",
                why="pytest-arena reads markers at the end of the collection",
                cause=item.nodeid,
                fix="add it by a decorator, or in pytest_collection_modifyitems of conftest.py",
            )
            self.problems[_wrong_marker(item, error)] = None

    def _add(self, mapping: Mapping, *, is_deselected: bool) -> None:
        others_deselected = self._is_deselected.get(mapping, True)
        self._is_deselected[mapping] = others_deselected and is_deselected

    def plain(self) -> dict[str, object]:
        """Return the collection as plain values, for another process."""
        return {
            "names": self.names,
            "mappings": [to_shape(mapping) for mapping in self.all()],
            "problems": [to_shape(problem) for problem in self.problems],
        }

    def take_over(self, sent: dict[str, Any]) -> None:
        """Add the collection of another process."""
        self.collectors += 1
        self.names |= sent["names"]
        for values in sent["problems"]:
            self.problems[Problem(**values)] = None
        for values in sent["mappings"]:
            mapping = from_shape(Mapping, values)
            self._add(
                replace(mapping, is_deselected=False),
                is_deselected=mapping.is_deselected,
            )


def _wrong_marker(item: pytest.Item, error: ScenarioError, key: str = "") -> Problem:
    file, _, line = _place(item).rpartition(":")
    return Problem(
        spec=file,
        line=int(line),
        what=error.what,
        hint=error.fix,
        scenario=key,
    )


# Did the run include all tests?


def what_is_left_out(
    session: pytest.Session,
    mappings: Mappings,
    broken: list[str],
) -> str:
    """Return why the run left out tests of scenarios, or "" if it left out none.

    An option such as ``-m "not slow"`` does not count if it left out no test of a scenario.
    """
    config = session.config
    reasons = list(_narrowed(config))
    reasons += _deselected(config, mappings)
    reasons += _stopped(session)
    if broken:
        reasons.append(f"{', '.join(broken)} could not be collected")
    if not mappings.collectors:
        reasons.append("no process has sent its tests")
    return "; ".join(reasons)


def _narrowed(config: pytest.Config) -> Iterator[str]:
    """Yield the options that made pytest collect only a part of the tests."""
    # Without paths, pytest collects the folder in which it was called.
    source = getattr(config.args_source, "name", "")
    args = []
    if source in {"ARGS", "INVOCATION_DIR"}:
        args = list(config.args)
    folders = [_path(arg, config) for arg in args if "::" not in arg]
    is_covered = True
    for path in _testpaths(config):
        if not any(map(path.is_relative_to, folders)):
            is_covered = False
    if args and not is_covered:
        reason = " ".join(_shown(arg, config) for arg in args)
        if not config.getini("testpaths") and "::" not in reason:
            reason += (
                f". If these are all tests, set testpaths = {reason} in pytest's "
                "configuration"
            )
        yield reason
    yield from _ignored(config)
    for name in ("lf", "stepwise"):
        if getattr(config.option, name, False):
            yield f"--{name}"


def _shown(arg: str, config: pytest.Config) -> str:
    path, colons, rest = arg.partition("::")
    return f"{relative(_path(path, config), config.rootpath)}{colons}{rest}"


def _ignored(config: pytest.Config) -> Iterator[str]:
    """Yield the paths of tests that the command line ignores."""
    command_line = " ".join(map(str, config.invocation_params.args))
    ignored = list(config.option.ignore or ())
    ignored += config.option.ignore_glob or ()
    for arg in ignored:
        path = _path(arg, config)
        has_tests = False
        for tests in _testpaths(config):
            if path.is_relative_to(tests) or tests.is_relative_to(path):
                has_tests = True
        if has_tests and arg in command_line:
            yield f"--ignore={_shown(arg, config)}"


def _testpaths(config: pytest.Config) -> list[Path]:
    """Return ``testpaths``, or the root."""
    paths: list[Path] = []
    for pattern in config.getini("testpaths"):
        paths += config.rootpath.glob(pattern)
    return paths or [config.rootpath]


def _path(arg: str, config: pytest.Config) -> Path:
    return Path(config.invocation_params.dir, arg).resolve()


_CHOICES = (
    ("-k", "keyword"),
    ("-m", "markexpr"),
    ("--deselect", "deselect"),
    ("--group", "group"),  # the shard of pytest-split
)


def _deselected(config: pytest.Config, mappings: Mappings) -> Iterator[str]:
    tests = set()
    deselected = set()
    for mapping in mappings.all():
        tests.add(mapping.test)
        if mapping.is_deselected:
            deselected.add(mapping.test)
    if not deselected:
        return
    choices = []
    for flag, name in _CHOICES:
        value = getattr(config.option, name, None)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        if value:
            choices.append(f"{flag} {value}")
    counted = f"{len(deselected)} of {len(tests)} tests with a scenario deselected"
    if choices:
        counted = f"{', '.join(choices)}: {counted}"
    yield counted


def _stopped(session: pytest.Session) -> Iterator[str]:
    distributed = session.config.pluginmanager.get_plugin("dsession")
    xdist_reason = getattr(distributed, "shouldstop", "")
    reason = session.shouldfail or session.shouldstop or xdist_reason
    if reason:
        yield str(reason)
    elif session.exitstatus == _INTERRUPTED:
        yield "interrupted"


def uncollected(report: Any) -> Problem:
    """Return the problem of a file that could not be collected, or has skipped itself."""
    what = "could not be collected"
    hint = "pytest shows the error"
    if not report.failed:
        what = f"skips itself: {skip_reason(report.longrepr)}"
        hint = ""
    return Problem(
        spec=report.nodeid,
        line=0,
        what=f"{what}. pytest-arena does not know which scenarios its tests prove",
        hint=hint,
        is_error=report.failed,
    )
