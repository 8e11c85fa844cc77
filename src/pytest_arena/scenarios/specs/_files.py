"""Which files are specifications, and can they be read?"""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from dataclasses import replace
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._patterns import files_in, matching, once
from pytest_arena.scenarios.specs._reading import joined, parse
from pytest_arena.scenarios.specs._values import Problem, Scenario, Specification
from pytest_arena.scenarios.specs.gherkin import language as language_of
from pytest_arena.scenarios.specs.gherkin import nearest_language

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["found", "read"]

MEGABYTES = 5
"""A specification is text that somebody wrote: what is larger is a mistake."""

_ENDINGS = (".feature", ".md")
_SHOWN = 3
_NO_FILE = "no file matches "


def read(patterns: Sequence[str], root: Path, *, language: str = "en") -> Specification:
    """Return what all files say that the patterns mean, in the order of their paths.

    A file's mistakes stand in ``problems``, and so do two scenarios of one name; nothing is raised
    for them. 10,000 scenarios in 500 files take about a second.

    Args:
        patterns: files, folders, or globs with ``**``, from the root or absolute. Of a folder all
            ``*.feature`` and ``*.md`` files are read; a file that is named is read whatever its
            ending.
        root: what paths are told from.
        language: the code of the language where a text names none.

    Raises:
        ScenarioError: there is no such language.
    """
    _check_language(language)
    named: dict[str, bool] = {}
    problems: list[Problem] = []
    for pattern in patterns:
        matched = _matched(pattern, root, problems)
        if not matched:
            problems.append(Problem(spec="", line=0, what=f"{_NO_FILE}{pattern!r}"))
        is_single = not has_magic(pattern) and not (root / pattern).is_dir()
        for path in matched:
            named[path] = named.get(path, False) or is_single
    with _without_collections():
        files = [_file(path, root, language, is_named=named[path]) for path in once(named, root)]
        whole = joined(files)
    problems += [*whole.problems, *_doubles(whole.scenarios)]
    return replace(whole, problems=tuple(problems))


def found(specification: Specification, patterns: Sequence[str], *, place: str = "") -> None:
    """Check that something was found at all: an empty specification is proven by anything.

    ``place`` is where the patterns stand, if not on the command line.

    Raises:
        ScenarioError: a pattern matches no file, or there is no scenario in what was found.
    """
    for problem in specification.problems:
        if problem.what.startswith(_NO_FILE) and not problem.spec:
            raise ScenarioError(
                problem.what,
                why="a specification that is not read is not checked, and nothing would say so",
                cause=place or "a file was moved or renamed, or is seen from another folder",
                fix="arena scenarios list .   shows what there is; then mend "
                + ("that line" if place else "the path"),
            )
    if not specification.scenarios:
        _raise_empty(specification, patterns)


def _raise_empty(specification: Specification, patterns: Sequence[str]) -> None:
    files = specification.files
    errors = [str(one) for one in specification.problems if one.is_error]
    where = ", ".join(patterns) or "no path"
    raise ScenarioError(
        f"no scenario in {len(files)} file{'s' * (len(files) != 1)} ({where})",
        why="a specification without scenarios is proven by anything",
        cause="\n".join(errors) or "no line `Scenario:`, and no fence that is marked as gherkin",
        fix="mark Gherkin in Markdown with ```gherkin",
    )


def _check_language(code: str) -> None:
    if language_of(code) is None:
        raise ScenarioError(
            f"{code!r} is no language that Gherkin knows",
            why="keywords are looked for in that language",
            cause="the code of a language is such as en, fr, zh-CN",
            fix=nearest_language(code) or "en",
        )


def _matched(pattern: str, root: Path, problems: list[Problem]) -> set[str]:
    here = root / pattern
    if here.is_dir():
        closed: list[OSError] = []
        paths = {_told(path, root) for path in _inside(here, closed)}
        problems += [_closed(error, root) for error in closed]
        return paths
    if here.exists():
        return {_told(here, root)}
    try:
        return {_told(hit, root) for hit in matching(os.path.normpath(pattern), root)}
    except UnicodeEncodeError:  # no file here can have such a name
        return set()


def _inside(folder: Path, closed: list[OSError]) -> Iterator[Path]:
    for path in files_in(folder, closed.append):
        if path.name.lower().endswith(_ENDINGS):
            yield path


def _closed(error: OSError, root: Path) -> Problem:
    where = _told(Path(error.filename or "."), root)
    return Problem(spec=where, line=0, what=f"the folder {_reason(error)}")


def _told(path: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:  # Windows: on another drive
        return path.as_posix()


@contextmanager
def _without_collections() -> Iterator[None]:
    """All that is made here is kept: the collector would look through it a hundred times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _file(path: str, root: Path, language: str, *, is_named: bool) -> Specification:
    try:
        text = _text(root / path)
    except (OSError, ValueError) as error:
        problem = Problem(spec=path, line=_line_of(error), what=_reason(error))
        return Specification(files=(path,), problems=(problem,))
    said = parse(text, path, language=language)
    if is_named and not said.scenarios and not said.problems:
        lack = Problem(
            spec=path,
            line=0,
            what="no scenario in it, and no fence that is marked as gherkin",
            hint="write ```gherkin before the scenarios",
        )
        return replace(said, problems=(lack,))
    return said


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError("not a file that can be read")
    if (size := path.stat().st_size) > MEGABYTES * 1_000_000:
        raise ValueError(
            f"{size / 1_000_000:.1f} MB are more than a specification has; "
            f"expected at most {MEGABYTES} MB"
        )
    content = path.read_bytes()
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise ValueError("the text is UTF-16; expected UTF-8")
    if b"\0" in content:
        raise ValueError("not a text: there are zero bytes in it")
    return content.decode("utf-8-sig")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} is no UTF-8; expected a text in UTF-8"
    return str(error)


def _line_of(error: OSError | ValueError) -> int:
    if isinstance(error, UnicodeDecodeError):
        # The codec has been handed what follows the byte order mark, if there is one.
        return bytes(error.object[: error.start]).count(b"\n") + 1
    return 0


def _places(scenarios: Sequence[Scenario]) -> str:
    shown = [one.place for one in scenarios[:_SHOWN]]
    return ", ".join(shown) + f" and {len(scenarios) - _SHOWN} more" * (len(scenarios) > _SHOWN)


def _doubles(scenarios: Sequence[Scenario]) -> Iterator[Problem]:
    by_key: dict[str, list[Scenario]] = {}
    for one in scenarios:
        by_key.setdefault(one.key, []).append(one)
    for key, same in by_key.items():
        for one in same if len(same) > 1 else ():
            others = _places([other for other in same if other is not one])
            yield Problem(
                spec=one.spec,
                line=one.line,
                what=f"there is more than one {key!r}: also {others}",
                hint="rename one, or give each a tag of its own, such as @SHOP-1",
                scenario=key,
            )
