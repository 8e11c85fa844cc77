"""Which scenarios does a test say that it proves, and were all tests of scenarios run?"""

import ast
import inspect
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pytest_arena._config._read import Config
from pytest_arena._others import own_function
from pytest_arena._values import CodeLine
from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios._idle import function_of
from pytest_arena.scenarios._tries import skip_reason
from pytest_arena.scenarios.evidence._document import Mapping, from_shape, to_shape
from pytest_arena.scenarios.specs._index import Index, Reference, reference, row_proven
from pytest_arena.scenarios.specs._reader import relative
from pytest_arena.scenarios.specs._specification import (
    Problem,
    ScenarioSpec,
    Specification,
)


@dataclass(frozen=True, slots=True)
class Mapped:
    """One test and what its markers mean."""

    item: Any  # held, so that nothing else can come to have its identity
    test: str
    """Its node id at collection: another plugin may change it afterwards."""
    mappings: tuple[Mapping, ...]
    scenarios: tuple[ScenarioSpec, ...]
    errors: tuple[ScenarioError, ...]
    """Why markers of it mean no scenario."""


class Mapper:
    """Reads the markers of tests; pytest-bdd's tests need none."""

    def __init__(self, specification: Specification, index: Index, root: Path) -> None:
        self._index, self._root = index, root
        self._files = frozenset(specification.files)
        self._items: Sequence[Any] = ()
        self._named: frozenset[str] | None = None

    def all_of(self, items: Sequence[Any]) -> list[Mapped]:
        """Return those of these tests that say that they prove something."""
        self._items, self._named = items, None
        return [one for item in items if (one := self._mapped(item)) is not None]

    def _mapped(self, item: Any) -> Mapped | None:
        markers, template = list(item.iter_markers("scenario")), _template_of(item)
        found = []
        errors = []
        for marker in markers:
            line = linecache.getline(
                str(item.path), (item.location[1] or 0) + 1
            ).strip()
            place = f"{_place(item)}  {line}".strip()
            try:
                found.append(
                    self._found(
                        item, reference(marker.args, marker.kwargs, place=place)
                    )
                )
            except ScenarioError as error:
                errors.append(error)
        if template is not None:
            found += self._of_bdd(item, *template)
        if not found and not errors:
            return None
        return Mapped(
            item=item,
            test=item.nodeid,
            mappings=tuple(dict.fromkeys(mapping for mapping, _ in found)),
            scenarios=tuple({scenario.key: scenario for _, scenario in found}.values()),
            errors=tuple(errors),
        )

    def _found(self, item: Any, wanted: Reference) -> tuple[Mapping, ScenarioSpec]:
        scenario = self._index.find(wanted, named=self._named_by_all)
        mapping = Mapping(
            test=item.nodeid,
            place=_place(item),
            scenario=scenario.key,
            row=row_proven(scenario, wanted, _parameters(item)),
            rev=wanted.rev,
            source=_hash_of(item),
        )
        return mapping, scenario

    def _of_bdd(
        self, item: Any, name: str, file: Path
    ) -> Iterator[tuple[Mapping, ScenarioSpec]]:
        spec = relative(file, self._root)
        if spec in self._files:
            try:
                yield self._found(
                    item, Reference(name=name, spec=spec, place=_place(item))
                )
            except ScenarioError:
                return  # a malformed one, which is reported where it stands

    def _named_by_all(self) -> frozenset[str]:
        """The keys that tests name. Only for whom has none, who means one of the others."""
        if self._named is None:
            names = (
                str(marker.args[0])
                for item in self._items
                for marker in item.iter_markers("scenario")
                if marker.args
            )
            found = (self._index.only(Reference(name=name)) for name in names)
            self._named = frozenset(one.key for one in found if one is not None)
        return self._named


def _place(item: Any) -> str:
    file, line, _ = item.location
    return f"{file}:{(line or 0) + 1}".replace("\\", "/")


def _parameters(item: Any) -> dict[str, object]:
    """The values that the test was parametrised with; pytest-bdd's row is one of them."""
    callspec = getattr(item, "callspec", None)
    values = dict(callspec.params) if callspec is not None else {}
    row = values.pop("_pytest_bdd_example", {})
    return {**values, **row} if isinstance(row, dict) else values


# Is its code the same?


def _hash_of(item: Any) -> str:
    """Return the hash of what a test does, ``1:9f3c01aa``; "" where its code is not to be had.

    Blind to its name, decorators, annotations, docstring, comments and layout.
    """
    function = own_function(item)[2]
    code = getattr(inspect.unwrap(function) if function else None, "__code__", None)
    node = function_of(code) if code else None
    if node is None:
        return ""
    body = (
        node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    )
    text = "\n".join(map(ast.dump, body))
    return (
        f"1:{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"
    )


# What does pytest-bdd say of its tests, and which of its steps were never awaited?

_BDD = "pytest_bdd.scenario"


def _template_of(item: Any) -> tuple[str, Path] | None:
    """Return the scenario that pytest-bdd has made a test from, and its file.

    The name has its feature's and its rule's: ``Battles :: The rule :: It starts``. Guarded: the
    registry that says it is private to pytest-bdd.
    """
    registry = getattr(
        sys.modules.get(_BDD), "scenario_wrapper_template_registry", None
    )
    function = getattr(item, "obj", None)
    try:
        one = registry.get(getattr(function, "__func__", function))  # type: ignore[union-attr]  # as below
        rule = getattr(getattr(one, "rule", None), "name", "")
        names = [one.feature.name, rule, one.name] if one.feature.name else [one.name]
        return " :: ".join(filter(None, names)), Path(one.feature.filename)
    except (AttributeError, TypeError):  # none of its, or another version of it
        return None


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
        module: Any = sys.modules.get(_BDD)
        if module is None or self._original is not None:
            return ""
        original = self._original = getattr(module, "call_fixture_func", None)
        if original is None:
            return (
                "this version of pytest-bdd calls its steps in another way: "
                "one that returns a coroutine may pass without having run"
            )

        def called(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if inspect.iscoroutine(result) or inspect.isasyncgen(result):
                self._made.append(
                    (kwargs.get("fixturefunc", args[0] if args else None), result)
                )
            return result

        module.call_fixture_func = called
        return ""

    def unwatch(self) -> None:
        """Put back what ``watch`` has replaced."""
        if self._original is not None:
            module: Any = sys.modules[_BDD]
            module.call_fixture_func, self._original = self._original, None

    def take(self) -> ScenarioError | None:
        """Return the error for the steps of the test that has just ended, if one never ran."""
        made, self._made = self._made, []
        steps = [step for step, result in made if _never_ran(result)]
        if not steps:
            return None
        names = [str(getattr(step, "__name__", step)) for step in steps]
        code = getattr(inspect.unwrap(steps[0]), "__code__", None)
        calls = ", ".join(dict.fromkeys(f"{name}()" for name in names))
        return ScenarioError(
            f"the step function {calls} returned a coroutine that nobody awaited: it never ran",
            why="pytest-bdd calls its steps and awaits none, so that the test passes whatever they "
            "say",
            cause=str(CodeLine(code.co_filename, code.co_firstlineno))
            if code
            else names[0],
            fix="make it a def; or make the scenario a plain async test, marked with "
            "@pytest.mark.scenario(…)",
        )


def _never_ran(result: Any) -> bool:
    if inspect.isasyncgen(
        result
    ):  # who begins one asks for more of it: nobody, of a step's
        return not result.ag_running and result.ag_frame is not None
    if inspect.getcoroutinestate(result) != inspect.CORO_CREATED:
        return False
    result.close()  # else Python warns of it, wherever it is collected
    return True


# What has the collection of all processes found?


class Mappings:
    """Mappings, wrong markers and the names of tests, of all processes.

    Every worker collects all tests: what one tells is told by the others too.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Node ids as reports have them, which plugins may have changed, and those of mappings."""
        self.collectors = 0
        """How many processes have told of their collection."""
        self.problems: dict[Problem, None] = {}
        """Markers that mean nothing, files whose tests nobody knows."""
        self._mappings: dict[
            Mapping, bool
        ] = {}  # whether it is deselected, in all of them

    def all(self) -> list[Mapping]:
        """Return the mappings."""
        return [
            replace(one, is_deselected=gone) for one, gone in self._mappings.items()
        ]

    def add(self, tests: Iterable[Mapped], *, selected: frozenset[int]) -> None:
        """This process has collected these, and will run those with such an identity."""
        self.collectors += 1
        for test in tests:
            self.names[test.item.nodeid] = test.test
            file, _, number = _place(test.item).rpartition(":")
            for error in test.errors:
                orphan = Problem(
                    spec=file, line=int(number), what=error.what, hint=error.fix
                )
                self.problems[orphan] = None
            self._add(test.mappings, is_deselected=id(test.item) not in selected)

    def _add(self, mappings: Iterable[Mapping], *, is_deselected: bool) -> None:
        for one in mappings:
            self._mappings[one] = self._mappings.get(one, True) and is_deselected

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, to be sent to another process."""
        return {
            "names": self.names,
            "mappings": [to_shape(one) for one in self.all()],
            "problems": [to_shape(one) for one in self.problems],
        }

    def take_over(self, sent: dict[str, Any]) -> None:
        """Add what another process has found."""
        self.collectors += 1
        self.names |= sent["names"]
        self.problems |= {Problem(**one): None for one in sent["problems"]}
        for values in sent["mappings"]:
            one = from_shape(Mapping, values)
            self._add(
                [replace(one, is_deselected=False)], is_deselected=one.is_deselected
            )


# Was this the whole run, and are the files there that say what was agreed on?


def what_is_left_out(session: Any, found: Mappings, broken: list[str]) -> str:
    """Return why not all tests of the scenarios were run, as it was asked for; "" if all were.

    A choice that has left out none of them changes nothing: with ``-m "not slow"`` in the
    configuration a run may be whole.
    """
    config = session.config
    reasons = [*_narrowed(config), *_deselected(config, found), *_stopped(session)]
    if broken:
        reasons.append(f"{', '.join(broken)} could not be collected")
    if not found.collectors:
        reasons.append("no process has told of its tests")
    return "; ".join(reasons)


def _narrowed(config: Any) -> Iterator[str]:
    """Only a part was collected."""
    args = _paths_asked_for(config)
    folders = [_path(arg, config) for arg in args if "::" not in arg]
    if args and not all(
        any(map(path.is_relative_to, folders)) for path in _testpaths(config)
    ):
        hint = "" if config.getini("testpaths") else _HINT
        yield " ".join(_shown(arg, config) for arg in args) + hint
    yield from _ignored(config)
    for name in ("lf", "stepwise"):
        if getattr(config.option, name, False):
            yield f"--{name}"


_HINT = " (testpaths, in pytest's configuration, says what all of them are)"


def _paths_asked_for(config: Any) -> list[str]:
    """Those on the command line; without them, and outside of the root, the folder of the call."""
    source = getattr(config.args_source, "name", "")
    return list(config.args) if source in {"ARGS", "INVOCATION_DIR"} else []


def _shown(arg: str, config: Any) -> str:
    path, colons, rest = arg.partition("::")
    return f"{relative(_path(path, config), config.rootpath)}{colons}{rest}"


def _ignored(config: Any) -> Iterator[str]:
    """What is left out on the command line; in the configuration it says what all of them are."""
    given = " ".join(map(str, config.invocation_params.args))
    ignored = [*(config.option.ignore or ()), *(config.option.ignore_glob or ())]
    for one in ignored:
        path = _path(one, config)
        of_tests = (
            path.is_relative_to(it) or it.is_relative_to(path)
            for it in _testpaths(config)
        )
        if one in given and any(of_tests):
            yield f"--ignore={_shown(one, config)}"


def _testpaths(config: Any) -> list[Path]:
    """Where all tests are: anywhere, where nobody says it."""
    named = [
        path
        for text in config.getini("testpaths")
        for path in config.rootpath.glob(text)
    ]
    return named or [config.rootpath]


def _path(arg: str, config: Any) -> Path:
    return Path(config.invocation_params.dir, arg).resolve()


def _deselected(config: Any, found: Mappings) -> Iterator[str]:
    gone = {one.test for one in found.all() if one.is_deselected}
    if not gone:
        return
    given = [
        f"{flag} {value}" for flag, name in _CHOICES if (value := _chosen(config, name))
    ]
    all_of_them = len({one.test for one in found.all()})
    counted = f"{len(gone)} of {all_of_them} tests with a scenario deselected"
    yield f"{', '.join(given)}: {counted}" if given else counted


_CHOICES = (
    ("-k", "keyword"),
    ("-m", "markexpr"),
    ("--deselect", "deselect"),
    ("--scenario", "arena_scenario"),
    ("--group", "group"),  # of pytest-split: a shard
)


def _chosen(config: Any, name: str) -> str:
    value = getattr(config.option, name, None)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _stopped(session: Any) -> Iterator[str]:
    distributed = session.config.pluginmanager.get_plugin("dsession")
    stops = (
        session.shouldfail,
        session.shouldstop,
        getattr(distributed, "shouldstop", ""),
    )
    if stop := next(filter(None, stops), ""):
        yield str(stop)
    elif session.exitstatus == _INTERRUPTED:
        yield "interrupted"


_INTERRUPTED = 2


def uncollected(report: Any) -> Problem:
    """Return the problem of a file that could not be collected, or has skipped itself."""
    if report.failed:
        what, hint = "could not be collected", "pytest shows the error"
    else:
        what, hint = f"skips itself: {skip_reason(report.longrepr)}", ""
    return Problem(
        spec=report.nodeid,
        line=0,
        what=f"{what}; the mapping is incomplete: nobody knows which scenarios its tests prove",
        hint=hint,
        is_error=report.failed,
    )


_LOCK = "scenarios.lock"  # what it is called where nobody has named it


def check_agreed(wanted: Config, *, lists_only: bool) -> None:
    """Look for the baseline and the lock file that options name.

    A list may lack them: what is there to be accepted is found by one.

    Raises:
        ConfigError: it is not there. Nothing would be said of it until something is lacking.
    """
    hints = {
        "scenario_baseline": "write it:\n"
        "pytest --arena-scenario-baseline= --scenarios-out=json:scenarios.json\n"
        "arena scenarios report scenarios.json --baseline {}",
        "scenario_lock": "arena scenarios accept --all   writes it",
    }
    for option, fix in hints.items():
        name = getattr(wanted, option)
        if (
            name not in {"", _LOCK}
            and not lists_only
            and not (wanted.root / name).exists()
        ):
            raise ConfigError(
                f"arena_{option} names {name}, which is not there",
                why="a name that is misspelt would go unnoticed, and so would what was agreed on",
                cause=wanted.places[option],
                fix=fix.format(name),
            )
