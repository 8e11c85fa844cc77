"""Which assertions of a test have passed, what do they say, and may one have passed unheard?"""

import ast
import dis
import functools
import inspect
import linecache
import re
import sys
import unittest
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any
from unittest import mock

import _pytest.assertion.rewrite as rewriting
import _pytest.assertion.util as asserting

from pytest_arena._config._load import is_library
from pytest_arena._others import own_function
from pytest_arena.scenarios._idle import function_of, hangs_on_nothing
from pytest_arena.scenarios._instruments import Instruments
from pytest_arena.scenarios.specs._reader import relative

_Heard = Callable[[int, str, str], None]

# pytest compiles test files twice, with calls for assertions that pass and without: each kind has
# files of its own in the cache, or one of them would be silent.
_TAIL = "-arena.pyc"
_INI = "enable_assertion_pass_hook"


def enable(early_config: Any) -> str:
    """Have assertions that pass tell of it, before any test file is imported.

    Returns why that cannot be; "" where it can. Ends with pytest's configuration. Cost: 0.1 µs an
    assertion wherever nobody wants to know, some 3 µs where somebody does.
    """
    if sys.flags.optimize:
        return "python -O leaves assertions out"
    if getattr(early_config.known_args_namespace, "assertmode", "") != "rewrite":
        return "--assert=plain: pytest does not see assertions"
    tail = rewriting.PYC_TAIL
    try:
        early_config._inicache[_INI] = True  # noqa: SLF001 - no public way works this early
        rewriting.PYC_TAIL = f"{tail.removesuffix('.pyc')}{_TAIL}"
        early_config.add_cleanup(_others_too())
        is_heard = _is_heard(early_config)
    except Exception as error:  # noqa: BLE001 - private names of pytest's: any of them may change
        is_heard, _why = False, error
    early_config.add_cleanup(functools.partial(setattr, rewriting, "PYC_TAIL", tail))
    return "" if is_heard else "this pytest tells nobody of assertions that pass"


def _is_heard(config: Any) -> bool:
    """Try it out: rewrite an assertion, and listen."""
    source = b"def test():\n    assert 1 + 1 == 2\n"
    tree, names, listener = ast.parse(source), {"__name__": __name__}, mock.MagicMock()
    listener.__bool__.return_value = False
    rewriting.rewrite_asserts(tree, source, __file__, config)
    exec(compile(tree, __file__, "exec"), names)  # noqa: S102 - the text above
    with mock.patch.object(asserting, "_assertion_pass", listener):
        names["test"]()  # type: ignore[operator]  # a function
    return bool(listener.__bool__.call_count == 1)


@contextmanager
def heard(instruments: Instruments, item: Any) -> Iterator[None]:
    """Around a test's call: tell of each assertion of it that passes."""
    _hear_playwright(item.config)
    before = getattr(
        asserting, "_assertion_pass", None
    )  # not there: `enable` has said so
    listener = _Listener(instruments, str(item.config.rootpath), before)
    asserting._assertion_pass = listener  # noqa: SLF001 - as above
    _listeners.append(listener)
    is_unittest = issubclass(getattr(item, "cls", None) or object, unittest.TestCase)
    try:
        with (
            _method_alone(instruments, item)
            if is_unittest
            else _called(instruments, item)
        ):
            yield
    finally:
        _listeners.remove(listener)
        asserting._assertion_pass = before  # noqa: SLF001 - as above


@contextmanager
def _called(instruments: Instruments, item: Any) -> Iterator[None]:
    instruments.begin_call()
    try:
        yield
    finally:
        log = instruments.log
        if log is not None and not log.has_asserted and (why := unheard(item)):
            log.off["asserted"] = why
        # Private: what it got by `getfixturevalue` is not among its `fixturenames`.
        instruments.end_call(
            getattr(getattr(item, "_request", None), "_fixture_defs", ())
        )


@contextmanager
def _method_alone(instruments: Instruments, item: Any) -> Iterator[None]:
    """Without ``setUp`` and ``tearDown``, which unittest runs in the call as well."""
    method = item.obj
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def acalled(*args: Any, **kwargs: Any) -> None:
            with _called(instruments, item):
                await method(*args, **kwargs)

        with mock.patch.object(
            item.instance, item.name, acalled
        ):  # pytest leaves it to unittest
            yield
        return

    item.obj = _called(instruments, item)(method)
    try:
        yield
    finally:
        item.obj = method


@functools.cache
def _file(name: str, root: str) -> str:
    return relative(Path(name), Path(root))


class _Listener:
    """Tells the instruments of each assertion that passes.

    pytest asks whether there is a listener before it explains an assertion to it. To explain one
    costs twenty times what all the rest does, so the question is enough: it is told here, by the
    line that asks.
    """

    def __init__(
        self, instruments: Instruments, root: str, before: _Heard | None
    ) -> None:
        self._instruments, self._root, self._before = instruments, root, before

    def __bool__(self) -> bool:
        self._tell(sys._getframe(2))  # noqa: SLF001 - of whoever asserts; the documented way to a frame
        return self._before is not None

    def __call__(self, line: int, text: str, explanation: str) -> None:
        if self._before is not None:
            self._before(line, text, explanation)

    def passed(self, frame: FrameType | None) -> None:
        """Something else than an assertion has asserted, called by the line of this frame."""
        while frame is not None and _is_a_tool(frame):
            frame = frame.f_back
        if frame is not None:
            self._tell(frame)

    def _tell(self, frame: FrameType) -> None:
        """Tell where a frame is, what is asserted there, and of what stands around it."""
        code, line, names = frame.f_code, frame.f_lineno, _variables(frame)
        text, place = (
            statement(code.co_filename, line),
            _file(code.co_filename, self._root),
        )
        is_own = hangs_on_nothing(code, text, names, self._instruments.is_as_seeded)
        is_idle = is_own or _is_an_answer(text, names)
        values = list(names.values())
        self._instruments.asserted(f"{place}:{line}", text, values, is_idle=is_idle)


_listeners: list[_Listener] = []

_UNSHARED = 3  # references to a dict: the frame's, ours, and that of who counts them


def _variables(frame: FrameType) -> Mapping[str, object]:
    """Return what the names in a function stand for."""
    names = frame.f_locals
    if sys.version_info >= (3, 13) or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return names
    found = dict(names)
    # Before Python 3.13 the frame keeps the dict, and with it whatever the test deletes later on.
    if sys.getrefcount(names) == _UNSHARED:  # nobody else has it, by `locals()`
        names.clear()
    return found


# Assertions that each answer passes. The name is the answer's.
_OF_EACH_ANSWER = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:bool\()?(\w+)\)?",
        r"(\w+)\.status_code",
        r"(\w+)(?:\.(?:status_code|text|content|headers|json))? (?:is not|!=) None",
        r"isinstance\((\w+)\.(?:status_code, int|text, str|content, bytes)\)",
        r"type\((\w+)\.status_code\) (?:is|==) int",
        r"self\.assertIsNotNone\((\w+)(?:\.(?:status_code|text|content|headers))?\)",
        r"self\.assertIsInstance\((\w+)\.(?:status_code, int|text, str|content, bytes)\)",
    )
)


@functools.cache
def _answer_in(text: str) -> str:
    """Return the name that has to be an answer's for that, or ""."""
    matches = (pattern.fullmatch(text) for pattern in _OF_EACH_ANSWER)
    match = next(filter(None, matches), None)
    return match[1] if match is not None else ""


def _is_an_answer(text: str, names: Mapping[str, object]) -> bool:
    """Return whether each answer passes this assertion, whatever the app answers."""
    value = names.get(_answer_in(text))
    return hasattr(value, "raise_for_status") and not hasattr(value, "__bool__")


# What asserts besides the statement.


def _is_a_tool(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.startswith(("_pytest.", "unittest.", "contextlib", "pytest_arena."))


def _others_too() -> Callable[[], None]:
    """Have `pytest.raises`, unittest and mocks tell as well. Returns what ends that."""
    # Here, since these names are private as well, and `enable` is told where one is lacking.
    from unittest.case import (  # noqa: PLC0415 - as above
        _AssertRaisesContext,
        _AssertWarnsContext,
    )

    from _pytest import raises, recwarn  # noqa: PLC0415 - as above

    mocks = (mock.NonCallableMock, mock.AsyncMockMixin)
    originals = [
        *(
            (kind, "__exit__", _exiting)
            for kind in (raises.RaisesExc, raises.RaisesGroup)
        ),
        *(
            (kind, "__exit__", _exiting)
            for kind in (_AssertRaisesContext, _AssertWarnsContext)
        ),
        (recwarn.WarningsChecker, "__exit__", _exiting),
        *(
            (unittest.TestCase, name, _calling)
            for name in _asserts(unittest.TestCase, "assert")
        ),
        *(
            (kind, name, _calling)
            for kind in mocks
            for name in _asserts(kind, "assert_")
        ),
    ]
    patches = ExitStack()
    for kind, name, wrap in originals:
        patches.enter_context(mock.patch.object(kind, name, wrap(vars(kind)[name])))
    return patches.close


def _asserts(kind: type, prefix: str | tuple[str, ...]) -> list[str]:
    return [
        name
        for name, one in vars(kind).items()
        if name.startswith(prefix) and callable(one)
    ]


def _exiting(leave: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(leave)
    def left(self: Any, kind: Any, *rest: Any) -> Any:
        __tracebackhide__ = True
        result = leave(self, kind, *rest)
        is_caught = (
            kind is None or result
        )  # an error that it lets pass is none that it expected
        if _listeners and is_caught:
            _listeners[-1].passed(sys._getframe(1))  # noqa: SLF001 - as above
        return result

    return left


def _calling(check: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(check)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        result = check(*args, **kwargs)
        if _listeners and result is None and not _is_a_tool(caller := sys._getframe(1)):  # noqa: SLF001 - as above
            _listeners[-1].passed(caller)
        return result

    return checked


_PLAYWRIGHT = ("playwright.sync_api._generated", "playwright.async_api._generated")
_expecting: set[str] = set()  # modules of Playwright whose assertions are recorded


def _hear_playwright(config: Any) -> None:
    """Record each passing ``expect(locator).to_have_text(…)``, if Playwright is imported.

    Called before each test, since plugins, conftest files and test files may import it.
    """
    for name in _unheard_playwright():
        _expecting.add(name)
        patches = ExitStack()
        config.add_cleanup(patches.close)
        config.add_cleanup(functools.partial(_expecting.discard, name))
        for kind in _assertion_classes(sys.modules[name]):
            for check in _asserts(kind, ("to_", "not_to_")):
                wrapper = _expectation(vars(kind)[check])
                patches.enter_context(mock.patch.object(kind, check, wrapper))


def _unheard_playwright() -> set[str]:
    """Return the imported modules whose assertions are not recorded yet."""
    return set(_PLAYWRIGHT) & sys.modules.keys() - _expecting


def _assertion_classes(module: ModuleType) -> list[type]:
    names = ("PageAssertions", "LocatorAssertions", "APIResponseAssertions")
    classes = [getattr(module, name, None) for name in names]
    return [kind for kind in classes if isinstance(kind, type)]


def _expectation(check: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(check):
        return _calling(check)

    @functools.wraps(check)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        # Read here: a task that awaits the coroutine later is called by the event loop.
        caller = sys._getframe(1)  # noqa: SLF001 - as above
        checking: Any = _awaited(functools.partial(check, *args, **kwargs), caller)
        checking.__qualname__ = (
            check.__qualname__
        )  # Python warns of it if it is never awaited
        return checking

    return checked


async def _awaited(
    check: Callable[[], Coroutine[Any, Any, None]], caller: FrameType
) -> None:
    __tracebackhide__ = True
    await check()
    if _listeners:
        _listeners[-1].passed(caller)


# What does the line say that asserts, and may a test have asserted unheard?

_LONGEST = 30  # lines of one statement
# No message, comment or second statement, and no bracket in a text: it ends where its line does,
# where all brackets are closed.
_ONE_LINE = re.compile(
    r"""assert\s+(?!\()((?:[\w\s.()\[\]=!<>%*/+-]|"[^"\\()\[\]]*"|'[^'\\()\[\]]*')+)"""
)


@functools.cache
def statement(file: str, line: int) -> str:
    """Return what an ``assert`` that begins in this line asserts, without its message.

    Of another statement all of it. Costs up to 100 µs, once for each line, but 5 µs for most.
    """
    first = text = linecache.getline(file, line).strip()
    one_line = _ONE_LINE.fullmatch(first)
    if one_line and all(first.count(a) == first.count(b) for a, b in ("()", "[]")):
        return one_line[1]
    for number in range(line + 1, line + _LONGEST):
        if (found := _asserted(text)) is not None:
            return found
        text += f"\n{linecache.getline(file, number).rstrip()}"
    return first.rpartition("assert ")[
        2
    ]  # of an `else: assert …`, which nobody can read alone


def _asserted(text: str) -> str | None:
    """Return what is asserted in a statement; None where it is none, or goes on."""
    for whole in (text, f"{text} pass"):  # the head of a `with pytest.raises(…):`
        try:
            tree = ast.parse(whole)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        found = [one.test for one in ast.walk(tree) if isinstance(one, ast.Assert)]
        return (
            "; ".join(ast.get_source_segment(whole, one) or "" for one in found) or text
        )
    return None


_DEPTH = 3  # helpers of helpers


def unheard(item: Any) -> str:
    """Return why assertions of a test cannot have been heard; "" where they can.

    pytest hears those of test files, conftest files, and modules that it was told of. What others
    assert is looked for by the names that the test uses. Costs some 100 µs.
    """
    function: Any = inspect.unwrap(own_function(item)[2])
    function = getattr(
        function, "__func__", function
    )  # of unittest's, where ours is around it
    if not isinstance(function, FunctionType):
        return ""
    arguments = list(getattr(item, "funcargs", {}).values())
    used = [function, *_used(function, arguments, depth=_DEPTH)]
    for one in used:
        if any(map(_is_silent, _codes(one.__code__))):
            if one.__code__.co_filename == str(item.path):
                return "its file was compiled without calls for assertions"
            how = f"pytest.register_assert_rewrite({one.__module__!r}) in conftest.py"
            where = (
                f"{one.__qualname__}() asserts in a module that pytest does not rewrite"
            )
            return f"{where}: {how}"
        node = function_of(one.__code__)
        if raised := _RAISED.search(ast.unparse(node) if node else ""):
            return f"nobody hears that `{raised[1]}` is not reached: assert what it is about"
    if _unheard_playwright():
        return (
            "expect() is not recorded: import Playwright outside of the test function"
        )
    known = {*(one.__name__ for one in used), *_HEARD}
    others = (name for name in _names(function) if name.lower().startswith("assert"))
    name = next((one for one in others if one not in known), "")
    return f"nobody hears {name}() pass: assert what it compares" if name else ""


_RAISED = re.compile(
    r"^ *(raise AssertionError|pytest\.fail|self\.fail)\b", re.MULTILINE
)
# What unittest and mocks have is heard.
_HEARD = {"AssertionError", *dir(unittest.TestCase), *dir(mock.AsyncMock)}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _is_silent(code: CodeType) -> bool:
    if "_call_assertion_pass" in code.co_names:
        return False
    return "_format_explanation" in code.co_names or any(
        (one.opname, one.argrepr) in _UNHEARD for one in dis.get_instructions(code)
    )


# What a plain `assert` is compiled to before Python 3.14, and since.
_UNHEARD = {("LOAD_ASSERTION_ERROR", ""), ("LOAD_COMMON_CONSTANT", "AssertionError")}


def _used(
    function: FunctionType, more: Iterable[object], *, depth: int
) -> Iterator[FunctionType]:
    """Functions of the user's that a function names, and those that these name."""
    names = _names(function)
    values = [function.__globals__.get(name, sys.modules.get(name)) for name in names]
    found = chain.from_iterable(_functions(value, names) for value in [*values, *more])
    for one in found:
        if not is_library(one.__code__.co_filename):
            yield one
            yield from _used(one, (), depth=depth - 1) if depth else ()


def _names(function: FunctionType) -> list[str]:
    return sorted(
        {name for code in _codes(function.__code__) for name in code.co_names}
    )


def _functions(value: object, names: list[str]) -> Iterator[FunctionType]:
    """A function itself; of a module, a class or an object those that are named."""
    if isinstance(value, FunctionType):
        yield value
        return
    owner = value if isinstance(value, ModuleType | type) else type(value)
    name = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    if is_library(
        str(getattr(sys.modules.get(name), "__file__", None) or "<built-in>")
    ):
        return
    for name in names:
        one = inspect.getattr_static(owner, name, None)
        one = getattr(one, "__func__", one)
        if isinstance(one, FunctionType):
            yield one
