"""Which files are specifications, and what do they say?"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs import _fences
from pytest_arena.scenarios.specs._features import feature_of
from pytest_arena.scenarios.specs._gherkin import Tree, tree
from pytest_arena.scenarios.specs._lint import Lint
from pytest_arena.scenarios.specs._specification import (
    GherkinText,
    Problem,
    ScenarioSpec,
    Specification,
    grouped_by,
)

MEGABYTES = 5
"""A specification is text that somebody wrote: what is larger is a mistake."""

_ENDINGS = (".feature", ".md")
_SHOWN, _FAULTS = 3, 5
_NO_FILE = "no file matches "
_INSTALLED = "node_modules"


def read(patterns: Sequence[str], root: Path) -> Specification:
    """Return what all files say that the patterns mean, in the order of their paths.

    A file's mistakes stand in ``problems``, and so do two scenarios of one name; nothing is raised
    for them. 10,000 scenarios in 500 files take a few seconds.

    Args:
        patterns: files, folders, or globs with ``**``, from the root or absolute. Of a folder all
            ``*.feature`` and ``*.md`` files are read; a file that is named is read whatever its
            ending.
        root: what paths are told from.
    """
    named: dict[str, bool] = {}
    problems: list[Problem] = []
    for pattern in patterns:
        matched = {relative(path, root) for path in _matched(pattern, root, problems)}
        if not matched:
            problems.append(Problem(spec="", line=0, what=f"{_NO_FILE}{pattern!r}"))
        is_single = not has_magic(pattern) and not (root / pattern).is_dir()
        for path in matched:
            named[path] = named.get(path, False) or is_single
    files = [_file(path, root, is_named=named[path]) for path in _once(named, root)]
    whole = _joined(files)
    problems += [*whole.problems, *_doubles(whole.scenarios)]
    return replace(whole, problems=tuple(problems))


def require_scenarios(
    specification: Specification, patterns: Sequence[str], *, place: str = ""
) -> None:
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
                cause=place
                or "a file was moved or renamed, or is seen from another folder",
                fix="arena scenarios list .   shows what there is; then mend "
                + ("that line" if place else "the path"),
            )
    if not specification.scenarios:
        count = len(specification.files)
        errors = [
            str(problem) for problem in specification.problems if problem.is_error
        ]
        where = ", ".join(patterns) or "no path"
        raise ScenarioError(
            f"no scenario in {count} file{'s' * (count != 1)} ({where})",
            why="a specification without scenarios is proven by anything",
            cause="\n".join(errors)
            or "no line `Scenario:`, and no fence that is marked as gherkin",
            fix="mark Gherkin in Markdown with ```gherkin",
        )


def _matched(pattern: str, root: Path, problems: list[Problem]) -> Iterator[Path]:
    """Yield the files that a pattern means; ``**`` stands for any folders.

    The library's own ``**`` enters each link, and with links that lead to each other never ends.
    """

    def closed(error: OSError) -> None:
        where = relative(Path(error.filename or "."), root)
        problems.append(
            Problem(spec=where, line=0, what=f"the folder {_reason(error)}")
        )

    here = root / pattern
    if here.is_dir():
        yield from (
            path
            for path in files_in(here, closed)
            if path.name.lower().endswith(_ENDINGS)
        )
        return
    if here.exists():
        yield here
        return
    parts = Path(os.path.normpath(pattern)).parts
    try:
        if "**" not in parts:
            hits = (root / hit for hit in glob(str(Path(*parts)), root_dir=root))  # noqa: PTH207 - pathlib's has no root
            yield from (hit for hit in hits if not hit.is_dir())
            return
        begin = tuple(takewhile(lambda part: not has_magic(part), parts))
        start = root.joinpath(*begin)
        for path in files_in(start):
            if _fits(path.relative_to(start).parts, parts[len(begin) :]):
                yield path
    except UnicodeEncodeError:  # no file here can have such a name
        return


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted or not parts:
        return not parts and set(wanted) <= {"**"}
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def files_in(
    folder: Path, failed: Callable[[OSError], object] | None = None
) -> Iterator[Path]:
    """Yield the files of a folder and all below it; each folder once, whatever links to it.

    What is hidden, and what others have installed, is nobody's specification.
    """
    top = os.path.realpath(folder)
    seen = {top}
    for place, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        for name in [*folders]:
            path = Path(place, name)
            real = os.path.realpath(path)
            # A link into this folder, or to one around it, shows what is seen by its own path.
            is_back = path.is_symlink() and (
                Path(real).is_relative_to(top) or Path(top).is_relative_to(real)
            )
            if name[0] == "." or name == _INSTALLED or is_back or real in seen:
                folders.remove(name)
            seen.add(real)
        yield from (Path(place, name) for name in files)


def _once(paths: Iterable[str], root: Path) -> list[str]:
    """Return the paths in order, without those that only lead to a file which is there anyway."""
    by_file = grouped_by(sorted(paths), lambda path: os.path.realpath(root / path))
    real = Path(os.path.realpath(root))
    own = (
        next((path for path in same if str(real / path) == file), same[0])
        for file, same in by_file.items()
    )
    return sorted(own)


def relative(path: Path, root: Path) -> str:
    """Return a path from the root folder, with ``/``: the same on each machine."""
    with suppress(ValueError):  # Windows: on another drive
        path = Path(os.path.relpath(path, root)) if path.is_absolute() else path
    return path.as_posix()


def _file(path: str, root: Path, *, is_named: bool) -> Specification:
    try:
        text = _text(root / path)
    except (OSError, ValueError) as error:
        line = 0
        if isinstance(error, UnicodeDecodeError):
            # The codec has been handed what follows the byte order mark, if there is one.
            line = bytes(error.object[: error.start]).count(b"\n") + 1
        problem = Problem(spec=path, line=line, what=_reason(error))
        return Specification(files=(path,), problems=(problem,))
    content = parse(text, path)
    if is_named and not content.scenarios and not content.problems:
        what = "no scenario in it, and no fence that is marked as gherkin"
        hint = "write ```gherkin before the scenarios"
        return replace(
            content, problems=(Problem(spec=path, line=0, what=what, hint=hint),)
        )
    return content


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError("not a file that can be read")
    if (size := path.stat().st_size) > MEGABYTES * 1_000_000:
        raise ValueError(
            f"{size / 1_000_000:.1f} MB are more than a specification has; "
            f"expected at most {MEGABYTES} MB"
        )
    text = path.read_bytes().decode("utf-8-sig")
    if "\0" in text:
        raise ValueError("not a text: there are zero bytes in it")
    return text


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} is no UTF-8; expected a text in UTF-8"
    return str(error)


def _doubles(scenarios: Sequence[ScenarioSpec]) -> Iterator[Problem]:
    for key, same in grouped_by(scenarios, lambda scenario: scenario.key).items():
        for scenario in same if len(same) > 1 else ():
            places = [other.place for other in same if other is not scenario]
            more = f" and {len(places) - _SHOWN} more" * (len(places) > _SHOWN)
            yield Problem(
                spec=scenario.spec,
                line=scenario.line,
                what=f"there is more than one {key!r}: also {', '.join(places[:_SHOWN])}{more}",
                hint="rename one, or give each a tag of its own, such as @SHOP-1",
                scenario=key,
            )


def parse(text: str, spec: str) -> Specification:
    """Return what one file's text says; what is wrong with it stands in its problems.

    Args:
        text: with any line ends; a byte order mark is no matter.
        spec: the file's path from the root. Its ending decides: ``.feature`` is Gherkin,
            ``.feature.md`` is Gherkin in headings and bullets, of anything else the fences are
            read that are marked as ``gherkin``.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    problems: list[Problem] = []
    if spec.lower().endswith(".feature"):
        blocks = [GherkinText(spec=spec, text=text)]
    elif spec.lower().endswith(".feature.md"):
        blocks = [_fences.headings_and_bullets(text, spec)]
    else:
        blocks, problems = _fences.fences(text, spec)
    whole = _joined([*map(_block, blocks), Specification(problems=tuple(problems))])
    ordered = sorted(whole.problems, key=lambda problem: (problem.line, problem.what))
    return replace(whole, files=(spec,), problems=tuple(ordered))


def _joined(parts: Sequence[Specification]) -> Specification:
    return Specification(
        files=tuple(path for part in parts for path in part.files),
        features=tuple(feature for part in parts for feature in part.features),
        scenarios=tuple(scenario for part in parts for scenario in part.scenarios),
        problems=tuple(problem for part in parts for problem in part.problems),
    )


def _block(block: GherkinText) -> Specification:
    gherkin = tree(block)
    if gherkin.feature is None:
        return Specification(problems=tuple(_unreadable(gherkin, block)))
    feature, parts = feature_of(gherkin.feature, gherkin, block)
    scenarios = tuple(part.scenario for part in parts)
    # Some faults of each scenario: what follows from one is not told a thousand times.
    faults = (_problem(fault, gherkin, block, scenarios) for fault in gherkin.faults)
    by_scenario = grouped_by(faults, lambda problem: problem.scenario)
    problems = [
        problem for several in by_scenario.values() for problem in several[:_FAULTS]
    ]
    lint = Lint(block=block, language=gherkin.language)
    further: list[Iterable[Problem]] = [lint.overlooked(parts)]
    if block.is_markdown:
        marks = _fences.unread_marks(block, gherkin.language, gherkin.document)
        further = [_fences.tagged_headings(block, gherkin.language), marks]
    further.append(
        lint.problems(gherkin.feature, parts, {it.scenario for it in problems})
    )
    for several in further:
        lines = {problem.line for problem in problems}
        problems += [problem for problem in several if problem.line not in lines]
    return Specification(
        features=(feature,), scenarios=scenarios, problems=tuple(problems)
    )


def _unreadable(gherkin: Tree, block: GherkinText) -> Iterator[Problem]:
    """Only the first fault: all others follow from it."""
    if block.is_markdown:
        yield from _fences.tagged_headings(block, gherkin.language)
    if not gherkin.faults:
        what = f"no Gherkin stands here; expected {gherkin.language.title('feature')}"
        yield block.problem(block.first_line, what)
    for fault in gherkin.faults[:1]:
        problem = _problem(fault, gherkin, block, ())
        slips = filter(None, map(gherkin.language.title_slip, block.lines))
        lost = sum(slip.title in {"scenario", "scenarioOutline"} for slip in slips)
        counted = f"; {lost} scenarios in it could not be read" if lost else ""
        yield replace(problem, what=problem.what + counted)


def _problem(
    fault: Problem, gherkin: Tree, block: GherkinText, scenarios: Sequence[ScenarioSpec]
) -> Problem:
    """A fault with the scenario that it is in; a tag is of the one below."""
    line = block.line(fault.line)
    title, step = gherkin.language.title_slip(line), gherkin.language.step_slip(line)
    above = [scenario.key for scenario in scenarios if scenario.line <= fault.line][-1:]
    below = [scenario.key for scenario in scenarios if scenario.line > fault.line][:1]
    keys = below or above if line.lstrip().startswith("@") else above
    is_feature = title is not None and title.title == "feature"
    meant = title or step
    hint = (
        f"did you mean `{meant.keyword} …`?" if meant and meant.kind != "exact" else ""
    )
    if title and title.kind == "exact":
        hint = "a file or a fence has one Feature" * is_feature
    if line.strip().startswith("'''"):
        hint = 'mark a doc string with """'
    key = keys[0] if keys and not is_feature else ""
    return replace(fault, hint=fault.hint or hint, scenario=key)
