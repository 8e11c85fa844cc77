"""Records the assertions of a test that passed."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import linecache
import re
import sys
import unittest
from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

import _pytest.assertion.rewrite as rewriting
import _pytest.assertion.util as asserting

from pytest_arena._config._load import is_library
from pytest_arena._others import own_function, replaced_function
from pytest_arena.scenarios.assertions._idle import (
    depends_only_on_test_data,
    is_block_of_python,
    is_uncalled_method,
)
from pytest_arena.scenarios.assertions._other_answers import passes_with_any_answer
from pytest_arena.scenarios.assertions._swallowed import is_swallowed
from pytest_arena.scenarios.assertions._test_files import function_of
from pytest_arena.scenarios.assertions._updated_snapshots import (
    has_snapshot,
    updates_snapshots,
)
from pytest_arena.scenarios.specs._reader import relative

if TYPE_CHECKING:
    import pytest

    from pytest_arena.scenarios.assertions._own_parameters import Fixtures

_PassHook = Callable[[int, str, str], None]

# pytest caches rewritten test files. Files with calls for passed assertions get another name.
_CACHE_TAIL = "-arena.pyc"
_HOOK_OPTION = "enable_assertion_pass_hook"


def enable(early_config: Any) -> str:
    """Make pytest report passed assertions. Called before any test file is imported.

    The clean-up of pytest's configuration undoes it. An assertion costs 3 µs in tests that prove a
    scenario, and 0.1 µs in other tests.

    Returns:
        Why that is impossible, or "" if it is possible.
    """
    if sys.flags.optimize:
        return "python -O removes assertions"
    if getattr(early_config.known_args_namespace, "assertmode", "") != "rewrite":
        return "--assert=plain: pytest does not see assertions"
    tail = rewriting.PYC_TAIL
    try:
        early_config._inicache[_HOOK_OPTION] = True  # noqa: SLF001 - no public way at this time
        rewriting.PYC_TAIL = f"{tail.removesuffix('.pyc')}{_CACHE_TAIL}"
        early_config.add_cleanup(_wrap_others())
        _wrap_libraries(early_config)
        is_reported = _is_reported(early_config)
    except Exception:  # noqa: BLE001 - the names are private to pytest, and may change
        is_reported = False
    early_config.add_cleanup(
        functools.partial(
            setattr,
            rewriting,
            "PYC_TAIL",
            tail,
        )
    )
    if is_reported:
        return ""
    return "this pytest does not report assertions that pass"


def _is_reported(config: pytest.Config) -> bool:
    """Rewrite an assertion, run it, and return whether it was reported."""
    source = b"def test():\n    assert 1 + 1 == 2\n"
    tree = ast.parse(source)
    names: dict[str, Any] = {"__name__": __name__}
    listener = mock.MagicMock()
    listener.__bool__.return_value = False
    rewriting.rewrite_asserts(tree, source, __file__, config)
    exec(compile(tree, __file__, "exec"), names)  # noqa: S102 - the text above
    with mock.patch.object(asserting, "_assertion_pass", listener):
        names["test"]()
    return bool(listener.__bool__.call_count == 1)


# The call of a test.


class CallRecorder(Protocol):
    """Records the call of a test."""

    @property
    def lacks_assertions(self) -> bool:
        """Whether no assertion of the test was recorded."""

    @property
    def has_late_requests(self) -> bool:
        """Whether the tear-down has sent a request."""

    def begin_call(self) -> None:
        """Count assertions from now on."""

    def end_call(self, fixture_names: Iterable[str]) -> None:
        """Read the facts at the end of the test's function."""

    def begin_teardown(self) -> None:
        """Count assertions of the tear-down from now on."""

    def note_unrecorded(self, reason: str) -> None:
        """Note why assertions were not recorded, or "" if there is no reason."""

    def is_as_seeded(self, value: object) -> bool:
        """Return whether a value is an ORM instance that still has the values of the test."""

    def asserted(
        self,
        place: str,
        text: str,
        values: Sequence[object] = (),
        *,
        is_idle: bool = False,
    ) -> None:
        """Record an assertion that has passed."""

    def failed(self, place: str, text: str) -> None:
        """Record an assertion that has failed. If the test passes, it swallowed the failure."""


@contextmanager
def record_assertions(recorder: CallRecorder, item: pytest.Item) -> Iterator[None]:
    """Record each assertion that passes in the call of a test."""
    _wrap_libraries(item.config)
    is_unittest = issubclass(getattr(item, "cls", None) or object, unittest.TestCase)
    record = _call
    if is_unittest:
        record = _method_alone

    def is_of_test(_: FrameType) -> bool:
        # In unittest the call includes `tearDown`, which runs after each test of its class.
        return not recorder.has_late_requests

    with _listen(recorder, item, is_of_test), record(recorder, item):
        yield


@contextmanager
def record_teardown_assertions(
    recorder: CallRecorder, item: pytest.Item
) -> Iterator[None]:
    """Record the assertions in the tear-down of fixtures that the test requests.

    An autouse fixture runs after each test, whatever the test is about. Its assertions count only
    if the fixture is in the test's file and the tear-down sends no request.
    """
    names = item.session._fixturemanager._getautousenames(item)  # noqa: SLF001 - no public name
    autouse = frozenset(names)
    fixtures = _fixtures_of(item)
    requested = set[CodeType]()
    for name, fixture in fixtures.items():
        code = getattr(inspect.unwrap(fixture.func), "__code__", None)
        if code is not None and name not in autouse:
            requested.update(_codes(code))
    file = str(item.path)

    def is_of_test(frame: FrameType | None) -> bool:
        is_in_file = False
        while frame is not None:
            if frame.f_code in requested:
                return True
            is_in_file = is_in_file or frame.f_code.co_filename == file
            frame = frame.f_back
        return is_in_file and not recorder.has_late_requests

    recorder.begin_teardown()
    with _listen(recorder, item, is_of_test):
        yield


@contextmanager
def _listen(
    recorder: CallRecorder,
    item: pytest.Item,
    counts: Callable[[FrameType], bool],
) -> Iterator[None]:
    """Record the assertions in the frames for which ``counts`` returns True."""
    # pytest's private name may not exist. Then `enable` has returned the reason.
    former = getattr(asserting, "_assertion_pass", None)
    listener = _Listener(
        recorder,
        str(item.config.rootpath),
        former,
        counts,
        fixtures=_fixtures_of(item),
        updates_snapshots=updates_snapshots(item.config),
    )
    _listeners.append(listener)
    try:
        with (
            mock.patch.object(asserting, "_assertion_pass", listener, create=True),
            mock.patch.object(rewriting, "_format_explanation", listener.explain),
        ):
            yield
    finally:
        _listeners.remove(listener)


@contextmanager
def _call(recorder: CallRecorder, item: pytest.Item) -> Iterator[None]:
    recorder.begin_call()
    try:
        yield
    finally:
        if recorder.lacks_assertions:
            with suppress(Exception):  # an object of the test may raise any error
                recorder.note_unrecorded(why_assertions_unrecorded(item))
        # The `fixturenames` of an item do not include fixtures that `getfixturevalue` returned.
        recorder.end_call(_fixtures_of(item))


def _fixtures_of(item: pytest.Item) -> Fixtures:
    """Return pytest's definitions of the fixtures that a test has requested until now."""
    request = getattr(item, "_request", None)
    fixtures: Fixtures = getattr(request, "_fixture_defs", {})
    return fixtures


@contextmanager
def _method_alone(recorder: CallRecorder, item: Any) -> Iterator[None]:
    """Record the method of a unittest test. Its call includes ``setUp`` and ``tearDown``."""
    method = item.obj
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def recorded(*args: object, **kwargs: object) -> None:
            with _call(recorder, item):
                await method(*args, **kwargs)
            recorder.begin_teardown()

        # unittest reads an async method from the instance.
        with mock.patch.object(item.instance, item.name, recorded):
            yield
        return

    def recorded_method(*args: object, **kwargs: object) -> None:
        with _call(recorder, item):
            method(*args, **kwargs)
        recorder.begin_teardown()

    with replaced_function(item, functools.wraps(method)(recorded_method)):
        yield


@functools.cache
def _file(name: str, root: str) -> str:
    return relative(Path(name), Path(root))


class _Listener:
    """Replaces pytest's hook for passed assertions, and records each of them.

    pytest calls ``bool()`` with the hook before it explains an assertion. An explanation takes
    twenty times longer than a record. So ``__bool__`` records the assertion of the calling frame.
    """

    def __init__(
        self,
        recorder: CallRecorder,
        root: str,
        former: _PassHook | None,
        counts: Callable[[FrameType], bool],
        *,
        fixtures: Fixtures,
        updates_snapshots: bool,
    ) -> None:
        self._counts = counts
        self._fixtures = fixtures
        self._recorder = recorder
        self._root = root
        self._former = former
        self._updates_snapshots = updates_snapshots

    def __bool__(self) -> bool:
        self._record(sys._getframe(2))  # noqa: SLF001 - the line that asserts
        return self._former is not None

    def __call__(
        self,
        line: int,
        text: str,
        explanation: str,
    ) -> None:
        if self._former is not None:
            self._former(line, text, explanation)

    def passed(self, frame: FrameType | None) -> None:
        """Record the pass of an asserting call in this frame, or in a caller outside of tools."""
        while frame is not None and _is_tool(frame):
            frame = frame.f_back
        if frame is not None:
            self._record(frame)

    def explain(self, explanation: str) -> str:
        """Explain an assertion as pytest does, and record a failed assertion."""
        # If the project has the hook, pytest also explains passed assertions, but without `assert`.
        if explanation.startswith("assert ") or "\n>assert " in explanation:
            self.failed(sys._getframe(1))  # noqa: SLF001 - the line that asserts
        return asserting.format_explanation(explanation)

    def failed(self, frame: FrameType) -> None:
        """Record the failed assertion of a frame if the test swallows the failure."""
        try:
            if is_swallowed(frame):
                text = statement(frame.f_code.co_filename, frame.f_lineno)
                self._recorder.failed(self._place(frame), text)
        except Exception as error:  # noqa: BLE001 - recording never fails a test
            self._note(error)

    def _place(self, frame: FrameType) -> str:
        return f"{_file(frame.f_code.co_filename, self._root)}:{frame.f_lineno}"

    def _note(self, error: Exception) -> None:
        """Note an error of the recording."""
        reason = f"an assertion was not recorded: {type(error).__name__}"
        self._recorder.note_unrecorded(reason)

    def _record(self, frame: FrameType) -> None:
        """Record the assertion that a frame executes."""
        try:
            if not self._counts(frame):
                return
            code = frame.f_code
            variables = _variables(frame)
            text = statement(code.co_filename, frame.f_lineno)
            place = self._place(frame)
            if self._updates_snapshots and has_snapshot(text, frame):
                self._recorder.note_unrecorded(_UPDATED)
                return
            try:
                is_idle = depends_only_on_test_data(
                    frame,
                    text,
                    variables,
                    self._fixtures,
                    self._recorder.is_as_seeded,
                )
                is_idle = is_idle or passes_with_any_answer(
                    frame, text, variables, self._fixtures
                )
                is_idle = is_idle or is_uncalled_method(text, variables)
                is_idle = is_idle or is_block_of_python(code, frame.f_lineno)
            except Exception:  # noqa: BLE001 - the assertion counts as able to fail
                is_idle = False
            values = list(variables.values())
            self._recorder.asserted(place, text, values, is_idle=is_idle)
        except Exception as error:  # noqa: BLE001 - recording never fails a test
            self._note(error)


_UPDATED = (
    "its snapshot assertions cannot fail in this run, which updates the snapshots. Run it again"
    " without that option"
)
_listeners: list[_Listener] = []

_UNSHARED = 3  # references to a dict: from the frame, `_variables` and `getrefcount`


def _variables(frame: FrameType) -> Mapping[str, object]:
    """Return the values of a function's variables by their names."""
    variables = frame.f_locals
    is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
    if sys.version_info >= (3, 13) or not is_function:
        return variables
    copy = dict(variables)
    # Before Python 3.13 the frame keeps this dict, and with it values that the test deletes.
    if sys.getrefcount(variables) == _UNSHARED:  # the test has not called `locals()`
        variables.clear()
    return copy


# Other kinds of assertions.


def _is_tool(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.startswith(_TOOLS)


_TOOLS = ("_pytest.", "unittest.", "contextlib", "pytest_arena.", "pytest_check.")


def _wrap_others() -> Callable[[], None]:
    """Record assertions of pytest.raises, unittest and mocks. Return a function that undoes it."""
    # `enable` handles an ImportError of these private names.
    from unittest.case import (  # noqa: PLC0415 - `enable` handles errors
        _AssertRaisesContext,
        _AssertWarnsContext,
    )

    from _pytest import raises, recwarn  # noqa: PLC0415 - `enable` handles errors

    patches = ExitStack()
    for kind in (
        raises.RaisesExc,
        raises.RaisesGroup,
        _AssertRaisesContext,
        _AssertWarnsContext,
        recwarn.WarningsChecker,
    ):
        _wrap(patches, kind, ["__exit__"], _recording_exit)
    _wrap_methods(patches, unittest.TestCase, "assert")
    _wrap_methods(patches, mock.NonCallableMock, "assert_")
    _wrap_methods(patches, mock.AsyncMockMixin, "assert_")
    return patches.close


def _wrap_methods(
    patches: ExitStack,
    kind: type,
    prefixes: str | tuple[str, ...],
) -> None:
    """Wrap all methods whose names begin with a prefix."""
    names = [
        name
        for name, value in vars(kind).items()
        if callable(value) and name.startswith(prefixes)
    ]
    _wrap(patches, kind, names, _recording_check)


def _wrap(
    patches: ExitStack,
    kind: type,
    names: Iterable[str],
    wrapper: Callable[[Callable[..., object]], Callable[..., object]],
) -> None:
    for name in names:
        patch = mock.patch.object(
            kind,
            name,
            wrapper(vars(kind)[name]),
        )
        patches.enter_context(patch)


def _recording_exit(leave: Callable[..., object]) -> Callable[..., object]:
    """Wrap an ``__exit__`` that asserts an exception or a warning."""

    @functools.wraps(leave)
    def leave_and_record(self: object, kind: object, *details: object) -> object:
        __tracebackhide__ = True
        result = leave(self, kind, *details)
        # The expected exception is suppressed.
        if _listeners and (kind is None or result):
            _listeners[-1].passed(sys._getframe(1))  # noqa: SLF001 - the line that asserts
        return result

    return leave_and_record


def _recording_check(check: Callable[..., object]) -> Callable[..., object]:
    """Wrap a method that asserts."""
    if inspect.iscoroutinefunction(check):
        return _recording_coroutine(check)

    @functools.wraps(check)
    def check_and_record(*args: object, **kwargs: object) -> object:
        __tracebackhide__ = True
        caller = sys._getframe(1)  # noqa: SLF001 - the line that asserts
        try:
            result = check(*args, **kwargs)
        except AssertionError:
            if _listeners and not _is_tool(caller):
                _listeners[-1].failed(caller)
            raise
        # A function of pytest-check returns False if it failed.
        has_passed = result is None or result is True
        if _listeners and has_passed and not _is_tool(caller):
            _listeners[-1].passed(caller)
        return result

    return check_and_record


def _recording_coroutine(check: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(check)
    def check_and_record(*args: object, **kwargs: object) -> object:
        __tracebackhide__ = True
        # The frame is read now. The event loop calls a task that awaits the coroutine later.
        caller = sys._getframe(1)  # noqa: SLF001 - the line that asserts
        call = functools.partial(check, *args, **kwargs)
        coroutine: Any = _await_and_record(call, caller)
        # Python's warning of a coroutine that is never awaited shows this name.
        coroutine.__qualname__ = check.__qualname__
        return coroutine

    return check_and_record


async def _await_and_record(
    check: Callable[[], Coroutine[object, object, None]], caller: FrameType
) -> None:
    __tracebackhide__ = True
    try:
        await check()
    except AssertionError:
        if _listeners:
            _listeners[-1].failed(caller)
        raise
    if _listeners:
        _listeners[-1].passed(caller)


_PLAYWRIGHT_CLASSES = ("PageAssertions", "LocatorAssertions", "APIResponseAssertions")
# The classes of other libraries whose methods assert, by their modules.
_CLASSES: dict[str, tuple[str, ...]] = {
    "playwright.sync_api._generated": _PLAYWRIGHT_CLASSES,
    "playwright.async_api._generated": _PLAYWRIGHT_CLASSES,
    "pytest_regressions.data_regression": ("DataRegressionFixture",),
    "pytest_regressions.dataframe_regression": ("DataFrameRegressionFixture",),
    "pytest_regressions.file_regression": ("FileRegressionFixture",),
    "pytest_regressions.num_regression": ("NumericRegressionFixture",),
    "pytest_snapshot.plugin": ("Snapshot",),
    "snapshottest.module": ("SnapshotTest",),
}
_PREFIXES = ("to_", "not_to_", "check", "assert_")
_SOFT = "pytest_check.check_functions"
# Functions of pytest-check that compare nothing.
_SOFT_OTHERS = {"assert_equal", "check_func", "fail"}
_wrapped_modules: set[str] = set()


def _wrap_libraries(config: pytest.Config) -> None:
    """Record the assertions of other imported libraries.

    Called before each test, because plugins, conftest files and test files may import them.
    """
    for name in _unwrapped_modules():
        _wrapped_modules.add(name)
        patches = ExitStack()
        config.add_cleanup(patches.close)
        config.add_cleanup(functools.partial(_wrapped_modules.discard, name))
        module = sys.modules[name]
        if name == _SOFT:
            _wrap_soft_checks(patches, module)
        for class_name in _CLASSES.get(name, ()):
            kind = getattr(module, class_name, None)
            if isinstance(kind, type):
                _wrap_methods(patches, kind, _PREFIXES)


def _unwrapped_modules() -> set[str]:
    """Return the imported modules whose assertions are not recorded yet."""
    return {_SOFT, *_CLASSES} & sys.modules.keys() - _wrapped_modules


def _wrap_soft_checks(patches: ExitStack, functions: ModuleType) -> None:
    """Record the functions of pytest-check, also in its package and its object ``check``."""
    package = sys.modules["pytest_check"]
    for name in set(functions.__all__) - _SOFT_OTHERS:
        recording = _recording_check(getattr(functions, name))
        for owner in (functions, package, package.check):
            patches.enter_context(mock.patch.object(owner, name, recording))
    kind = sys.modules["pytest_check.check_raises"].CheckRaisesContext
    _wrap(patches, kind, ["__exit__"], _recording_exit)


# The text of an assertion.

_MOST_LINES = 30  # of one statement
# An assertion without message, comment or second statement, and without brackets in texts. Such an
# assertion ends with its line if the line closes all brackets.
_ONE_LINE = re.compile(
    r"""assert\s+(?!\()((?:[\w\s.()\[\]=!<>%*/+-]|"[^"\\()\[\]]*"|'[^'\\()\[\]]*')+)"""
)


@functools.cache
def statement(file: str, line: int) -> str:
    """Return the asserted expression of the ``assert`` that begins in this line.

    Any other statement is returned whole. The first call for a line takes 5 to 100 µs.
    """
    first = linecache.getline(file, line).strip()
    one_line = _ONE_LINE.fullmatch(first)
    is_closed = first.count("(") == first.count(")")
    is_closed = is_closed and first.count("[") == first.count("]")
    if one_line and is_closed:
        return one_line[1]
    text = first
    for number in range(line + 1, line + _MOST_LINES):
        asserted = _asserted(text)
        if asserted is not None:
            return asserted
        text += f"\n{linecache.getline(file, number).rstrip()}"
    # Such as `else: assert …`, which cannot be parsed alone.
    return first.rpartition("assert ")[2]


def _asserted(text: str) -> str | None:
    """Return the asserted expression, or None if the text is not a whole statement."""
    for whole in (text, f"{text} pass"):  # the head of a `with pytest.raises(…):`
        try:
            tree = ast.parse(whole)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        segments = [
            ast.get_source_segment(whole, node) or "" for node in _assertions_in(tree)
        ]
        if len(segments) > 1:  # one assertion with several parts
            return " and ".join(f"({segment})" for segment in segments)
        return segments[0] if segments else text
    return None


_ASSERTING_CALL = re.compile(r"[\w.]+\.assert|(?:pytest_)?check\.\w+\(")


def _assertions_in(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the expressions of the ``assert`` statements in a line, and the asserting calls."""
    for node in ast.walk(tree):
        match node:
            case ast.Assert(test=test):
                yield test
            case ast.Expr(value=ast.Await(value=call)) | ast.Expr(value=call):
                is_call = isinstance(call, ast.Call)
                if is_call and _ASSERTING_CALL.match(ast.unparse(call)):
                    yield call


# Assertions that cannot be recorded.

_DEPTH = 3  # helpers of helpers
_RAISED = re.compile(
    r"^ *(raise AssertionError|pytest\.fail|self\.fail)\b", re.MULTILINE
)
_RECORDED = {"AssertionError", *dir(unittest.TestCase), *dir(mock.AsyncMock)}
# Libraries, and methods of pydantic, that raise an error without an `assert`.
_ASSERTING = {"assertpy", "expects", "hamcrest", "jsonschema", "pytest_check", "sure"}
_VALIDATING = {
    "model_validate",
    "model_validate_json",
    "validate_json",
    "validate_python",
}
# The instruction of a plain `assert` before Python 3.14, and since.
_PLAIN_ASSERT = {
    ("LOAD_ASSERTION_ERROR", ""),
    ("LOAD_COMMON_CONSTANT", "AssertionError"),
}


def why_assertions_unrecorded(item: pytest.Item) -> str:
    """Return why assertions of a test may not have been recorded, or "" if they were.

    pytest reports assertions in test files, conftest files and registered modules. The names that
    a test uses lead to the assertions of other functions. The search takes some 100 µs.
    """
    arguments = list(getattr(item, "funcargs", {}).values())
    values = _values_of_fixtures(item)
    steps = [value.step_func for value in values if _package(value) == "pytest_bdd"]
    if steps:
        arguments = values
    used = []
    for function in [own_function(item)[2], *steps]:
        plain = inspect.unwrap(function)
        # `_method_alone` has wrapped a method of unittest.
        plain = getattr(plain, "__func__", plain)
        if isinstance(plain, FunctionType):
            used += [plain, *_used(plain, arguments, depth=_DEPTH)]
    for each in used:
        why = _why_unrecorded(each, item)
        if why:
            return why
    for module in _unwrapped_modules():
        library = module.partition(".")[0]
        return (
            f"{library}'s assertions are not recorded. Import it outside of the test"
            " function"
        )
    analysed = {each.__name__ for each in used} | _RECORDED
    asserting = _ASSERTING - {name.partition(".")[0] for name in _wrapped_modules}
    for each in used:
        for name in _names(each):
            value = each.__globals__.get(name)
            is_assertion = name.lower().startswith("assert") and name not in analysed
            if is_assertion or name in _VALIDATING or _package(value) in asserting:
                return f"pytest-arena does not see that {name} passes. Assert what it compares"
    return ""


def _values_of_fixtures(item: pytest.Item) -> list[Any]:
    """Return the values of all fixtures of a test. The steps of pytest-bdd are fixtures."""
    fixtures = _fixtures_of(item)
    results = [fixture.cached_result for fixture in fixtures.values()]
    return [result[0] for result in results if result]


def _package(value: object) -> str:
    """Return the top package of a module, or of the module that defines a value."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return str(name).partition(".")[0]


def _why_unrecorded(function: FunctionType, item: pytest.Item) -> str:
    """Return why the assertions of one function are not recorded, or "" if they are."""
    code = function.__code__
    if any(map(_has_unrecorded_asserts, _codes(code))):
        if code.co_filename == str(item.path):
            return "its file was compiled without pytest's calls for assertions"
        fix = f"pytest.register_assert_rewrite({function.__module__!r}) in conftest.py"
        name = function.__qualname__
        return f"{name}() asserts in a module that pytest does not rewrite: {fix}"
    tree = function_of(code)
    raised = _RAISED.search(ast.unparse(tree)) if tree is not None else None
    if raised:
        what = f"pytest-arena does not see that `{raised[1]}` is not reached"
        return f"{what}. Assert its condition"
    return ""


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object, and the code objects of its inner functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _has_unrecorded_asserts(code: CodeType) -> bool:
    """Return whether this code, without its inner functions, has unrecorded assertions."""
    # The first name shows that pytest calls the hook. The second shows a rewritten assertion.
    if "_call_assertion_pass" in code.co_names:
        return False
    if "_format_explanation" in code.co_names:
        return True
    return any(
        (instruction.opname, instruction.argrepr) in _PLAIN_ASSERT
        for instruction in dis.get_instructions(code)
    )


def _used(
    function: FunctionType,
    arguments: Iterable[object],
    *,
    depth: int,
) -> Iterator[FunctionType]:
    """Yield the functions of the project that a function names, and those that they name."""
    names = _names(function)
    values = [function.__globals__.get(name, sys.modules.get(name)) for name in names]
    for value in [*values, *arguments]:
        for each in _functions(value, names):
            if is_library(each.__code__.co_filename):
                continue
            yield each
            if depth:
                yield from _used(each, (), depth=depth - 1)


def _names(function: FunctionType) -> list[str]:
    names = set[str]()
    for code in _codes(function.__code__):
        names.update(code.co_names)
    return sorted(names)


def _functions(value: object, names: list[str]) -> Iterator[FunctionType]:
    """Yield a function, or the functions of these names in a module, a class or an object."""
    if isinstance(value, FunctionType):
        yield value
        return
    owner = value if isinstance(value, ModuleType | type) else type(value)
    module_name = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if is_library(str(file or "<built-in>")):
        return
    for name in names:
        attribute = inspect.getattr_static(owner, name, None)
        function = getattr(attribute, "__func__", attribute)
        if isinstance(function, FunctionType):
            yield function
