"""Finds and reads the files of specifications."""

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path

from pytest_arena._values import counted
from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs import _fences
from pytest_arena.scenarios.specs._features import feature_of
from pytest_arena.scenarios.specs._gherkin import Slip, Tree, tree
from pytest_arena.scenarios.specs._lint import Lint
from pytest_arena.scenarios.specs._specification import (
    Feature,
    GherkinText,
    Problem,
    ScenarioSpec,
    Specification,
    grouped_by,
)

MEGABYTES = 5
"""The size of the largest file that is read. No person writes a larger specification."""

_ENDINGS = (".feature", ".md")
_READ = " or ".join(_ENDINGS)
_OTHER_TEXTS = (
    ".adoc",
    ".features",
    ".gherkin",
    ".markdown",
    ".mdx",
    ".rst",
    ".story",
    ".txt",
)
_SCENARIO = re.compile(r"^[ \t]*Scenario(?: Outline)?:", re.MULTILINE)
_MOST_PLACES = 3
_MOST_FAULTS = 5  # of one scenario: the first faults cause most others
_NO_FILE = "no file matches "
_INSTALLED = "node_modules"


def read(patterns: Sequence[str], root: Path) -> Specification:
    """Return the content of the files that the patterns match, in the order of their paths.

    Errors in files and scenarios of the same name do not raise an exception. They are ``problems``.
    10,000 scenarios in 500 files take a few seconds.

    Args:
        patterns: files, folders, or globs with ``**``, from the root or absolute. In a folder all
            ``*.feature`` and ``*.md`` files are read. A named file is read whatever its ending.
        root: the folder that paths are relative to.
    """
    named: dict[str, bool] = {}  # whether a pattern is the path of the file
    problems: list[Problem] = []
    for pattern in patterns:
        matched = {relative(path, root) for path in _matched(pattern, root, problems)}
        if not matched:
            problems.append(
                Problem(
                    spec="",
                    line=0,
                    what=f"{_NO_FILE}{pattern!r}",
                )
            )
        is_single = not has_magic(pattern) and not (root / pattern).is_dir()
        for path in matched:
            named[path] = named.get(path, False) or is_single
    for pattern in patterns:
        problems += _unread(pattern, root, named)
    paths = _distinct(named, root)
    whole = _joined([_read_file(path, root, is_named=named[path]) for path in paths])
    problems += [*whole.problems, *_doubles(whole.scenarios)]
    return replace(whole, problems=tuple(problems))


def require_scenarios(
    specification: Specification,
    patterns: Sequence[str],
    *,
    place: str = "",
) -> None:
    """Check that a specification has a scenario. An empty specification would count as proven.

    Args:
        specification: the content of the files.
        patterns: the patterns of the files.
        place: the place of the patterns, or "" for the command line.

    Raises:
        ScenarioError: a pattern matches no file, or the files have no scenario.
    """
    for problem in specification.problems:
        if problem.what.startswith(_NO_FILE) and not problem.spec:
            wrong = "the path"
            if place:
                wrong = "that line"
            raise ScenarioError(
                problem.what,
                why="the scenarios of a missing file would be left unchecked without a warning",
                cause=place
                or "a file was moved or renamed, or the command runs in another folder",
                fix="arena scenarios list .   shows all scenarios and"
                f" their files. Then correct {wrong}",
            )
    if specification.scenarios:
        return
    files = counted(len(specification.files), "file")
    names = ", ".join(patterns) or "no path"
    errors = [str(problem) for problem in specification.problems if problem.is_error]
    raise ScenarioError(
        f"no scenario in {files} ({names})",
        why="a specification without scenarios would always count as proven",
        cause="\n".join(errors)
        or "no file has a line `Scenario:` or a fence marked as gherkin",
        fix="write scenarios in a .feature file, or in Markdown in a fence: ```gherkin",
    )


# Files.


def _matched(
    pattern: str,
    root: Path,
    problems: list[Problem],
) -> Iterator[Path]:
    """Yield the files that a pattern matches. ``**`` matches any folders.

    A folder that cannot be read is added to the problems.
    """

    def add_problem(error: OSError) -> None:
        folder = relative(Path(error.filename or "."), root)
        what = f"the folder {_reason(error)}"
        problems.append(
            Problem(
                spec=folder,
                line=0,
                what=what,
            )
        )

    path = root / pattern
    if path.is_dir():
        for file in files_in(path, add_problem):
            if file.name.lower().endswith(_ENDINGS):
                yield file
    elif path.exists():
        yield path
    else:
        with suppress(UnicodeEncodeError):  # no file here can have such a name
            yield from _globbed(Path(os.path.normpath(pattern)).parts, root)


def _unread(pattern: str, root: Path, named: Container[str]) -> Iterator[Problem]:
    """Yield a warning for each file that a pattern seems to mean but does not match."""
    folder, _, name = pattern.replace("\\", "/").rpartition("/")
    if (root / pattern).is_dir():
        for file in files_in(root / pattern):
            line = _line_of_scenario(file)
            path = relative(file, root)
            if line and path not in named:
                hint = "rename the file, or name it in arena_specs if the scenario is in a fence"
                yield Problem(
                    spec=path,
                    line=line,
                    what=f"the scenario is not read: the file does not end in {_READ}",
                    hint=_fences.advice(path, hint),
                    is_error=False,
                )
    elif name == "*.feature" and folder and not has_magic(folder):
        for file in files_in(root / folder):
            path = relative(file, root)
            if file.suffix == ".feature" and path not in named:
                yield Problem(
                    spec=path,
                    line=0,
                    what=f"the file is not read: {pattern} matches no file in a subfolder",
                    hint=f"arena_specs = {folder}/**/{name}",
                    is_error=False,
                )


def _line_of_scenario(file: Path) -> int:
    """Return the first line `Scenario:` of a file whose ending is not read, or 0 without one."""
    if not file.name.lower().endswith(_OTHER_TEXTS):
        return 0
    try:
        text = _text(file)
    except (OSError, ValueError):
        return 0
    heading = _SCENARIO.search(text)
    if heading is None:
        return 0
    return text.count("\n", 0, heading.start()) + 1


def _globbed(
    parts: tuple[str, ...],
    root: Path,
) -> Iterator[Path]:
    if "**" not in parts:
        for hit in glob(str(Path(*parts)), root_dir=root):  # noqa: PTH207 - pathlib's has no root
            if not (root / hit).is_dir():
                yield root / hit
        return
    # ``glob`` follows each link for ``**``. Links that lead to each other would never end.
    fixed = tuple(takewhile(lambda part: not has_magic(part), parts))
    wanted = parts[len(fixed) :]
    start = root.joinpath(*fixed)
    for path in files_in(start):
        if _fits(path.relative_to(start).parts, wanted):
            yield path


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted or not parts:
        return not parts and set(wanted) <= {"**"}
    first, *rest = wanted
    if first == "**":
        return _fits(parts, rest) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], first) and _fits(parts[1:], rest)


def files_in(
    folder: Path, failed: Callable[[OSError], object] | None = None
) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders. Each folder is read once despite links.

    Hidden folders and installed packages are left out.
    """
    top = os.path.realpath(folder)
    visited = {top}
    for place, folders, files in os.walk(
        folder,
        onerror=failed,
        followlinks=True,
    ):
        for name in [*folders]:
            path = Path(place, name)
            real = Path(os.path.realpath(path))
            # A link may lead into the top folder, or to a folder around it.
            is_inside = real.is_relative_to(top) or Path(top).is_relative_to(real)
            leads_back = path.is_symlink() and is_inside
            is_hidden = name.startswith(".") or name == _INSTALLED
            if is_hidden or leads_back or str(real) in visited:
                folders.remove(name)
            visited.add(str(real))
        for name in files:
            yield Path(place, name)


def _distinct(paths: Iterable[str], root: Path) -> list[str]:
    """Return the sorted paths without links to other paths."""
    real_root = Path(os.path.realpath(root))
    by_file = grouped_by(sorted(paths), lambda path: os.path.realpath(root / path))
    distinct = []
    for file, same in by_file.items():
        own = [path for path in same if str(real_root / path) == file]
        distinct += [*own, *same][:1]
    return sorted(distinct)


def relative(path: Path, root: Path) -> str:
    """Return the path from the root folder, with ``/`` on each operating system."""
    if path.is_absolute():
        with suppress(ValueError):  # Windows: on another drive
            path = Path(os.path.relpath(path, root))
    return path.as_posix()


def _read_file(
    path: str,
    root: Path,
    *,
    is_named: bool,
) -> Specification:
    try:
        text = _text(root / path)
    except (OSError, ValueError) as error:
        line = 0
        if isinstance(error, UnicodeDecodeError):
            line = bytes(error.object[: error.start]).count(b"\n") + 1
        problem = Problem(
            spec=path,
            line=line,
            what=_reason(error),
        )
        return Specification(files=(path,), problems=(problem,))
    content = parse(text, path)
    if is_named and not content.scenarios and not content.problems:
        what = "the file has no scenario and no fence marked as gherkin"
        if _fences.is_other_markup(path):
            what = "the file has no scenario"
        problem = Problem(
            spec=path,
            line=0,
            what=what,
            hint=_fences.advice(path, "write ```gherkin before the scenarios"),
        )
        return replace(content, problems=(problem,))
    return content


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError("not a file, or a broken link")
    megabytes = path.stat().st_size / 1_000_000
    if megabytes > MEGABYTES:
        raise ValueError(
            f"the file has {megabytes:.1f} MB. "
            f"pytest-arena reads specifications of at most {MEGABYTES} MB"
        )
    text = path.read_bytes().decode("utf-8-sig")
    if "\0" in text:
        raise ValueError("the file is not a text: it contains zero bytes")
    return text


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} is not valid UTF-8"
    return str(error)


def _doubles(scenarios: Sequence[ScenarioSpec]) -> Iterator[Problem]:
    """Yield a problem for each scenario that has the key of another."""
    for key, same in grouped_by(scenarios, lambda scenario: scenario.key).items():
        for scenario in same:
            others = [other.place for other in same if other is not scenario]
            if not others:
                continue
            places = ", ".join(others[:_MOST_PLACES])
            more = len(others) - _MOST_PLACES
            if more > 0:
                places += f" and {more} more"
            yield Problem(
                spec=scenario.spec,
                line=scenario.line,
                what=f"more than one scenario is called {key!r}: also {places}",
                hint="rename one, or give each an id as a tag, such as @SHOP-1",
                scenario=key,
            )


# Texts.


def parse(text: str, spec: str) -> Specification:
    """Return the content of one file's text, with its errors as problems.

    Args:
        text: the text, with any line ends, and with or without a byte order mark.
        spec: the file's path from the root. A ``.feature`` file is Gherkin. A ``.feature.md`` file
            is Gherkin in headings and bullets. In any other file pytest-arena reads the fences
            marked as ``gherkin``.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    problems: list[Problem] = []
    if spec.lower().endswith(".feature"):
        blocks = [GherkinText(spec=spec, text=text)]
    elif spec.lower().endswith(".feature.md"):
        blocks = [_fences.headings_and_bullets(text, spec)]
    else:
        blocks, problems = _fences.fences(text, spec)
    whole = _joined([_parse_block(block) for block in blocks])
    problems += whole.problems
    problems.sort(key=lambda problem: (problem.line, problem.what))
    return replace(whole, files=(spec,), problems=tuple(problems))


def _joined(parts: Sequence[Specification]) -> Specification:
    files: list[str] = []
    features: list[Feature] = []
    scenarios: list[ScenarioSpec] = []
    problems: list[Problem] = []
    for part in parts:
        files += part.files
        features += part.features
        scenarios += part.scenarios
        problems += part.problems
    return Specification(
        files=tuple(files),
        features=tuple(features),
        scenarios=tuple(scenarios),
        problems=tuple(problems),
    )


def _parse_block(block: GherkinText) -> Specification:
    gherkin = tree(block)
    language = gherkin.language
    if gherkin.feature is None:
        return Specification(problems=tuple(_unreadable(gherkin, block)))
    feature, parts = feature_of(
        gherkin.feature,
        gherkin,
        block,
    )
    scenarios = tuple(part.scenario for part in parts)
    faults = [_problem(fault, gherkin, block, scenarios) for fault in gherkin.faults]
    problems = []
    for scenario_faults in grouped_by(faults, lambda fault: fault.scenario).values():
        problems += scenario_faults[:_MOST_FAULTS]
    faulty = {problem.scenario for problem in problems}
    lint = Lint(block=block, language=language)
    sources = [lint.overlooked(parts)]
    if block.is_markdown:
        sources = [
            _fences.tagged_headings(block, language),
            _fences.unread_marks(block, language, gherkin.document),
        ]
    sources.append(
        lint.problems(
            gherkin.feature,
            parts,
            faulty,
        )
    )
    for source in sources:
        # If several sources find a problem in a line, only the first source counts.
        lines = {problem.line for problem in problems}
        problems += [problem for problem in source if problem.line not in lines]
    return Specification(
        features=(feature,),
        scenarios=scenarios,
        problems=tuple(problems),
    )


def _unreadable(gherkin: Tree, block: GherkinText) -> Iterator[Problem]:
    """Yield the first fault of a block without a feature. This fault causes all others."""
    if block.is_markdown:
        yield from _fences.tagged_headings(block, gherkin.language)
    if not gherkin.faults:
        expected = gherkin.language.title("feature")
        what = f"no Gherkin was found. Expected {expected}"
        yield block.problem(block.first_line, what)
        return
    problem = _problem(
        gherkin.faults[0],
        gherkin,
        block,
        (),
    )
    lost = 0
    for line in block.lines:
        slip = gherkin.language.title_slip(line)
        if slip and slip.title in {"scenario", "scenarioOutline"}:
            lost += 1
    if lost:
        what = f"{problem.what}. {counted(lost, 'scenario')} could not be read"
        problem = replace(problem, what=what)
    yield problem


def _problem(
    fault: Problem,
    gherkin: Tree,
    block: GherkinText,
    scenarios: Sequence[ScenarioSpec],
) -> Problem:
    """Return a fault with its scenario and a hint. A tag belongs to the scenario below."""
    line = block.line(fault.line)
    title = gherkin.language.title_slip(line)
    key = ""
    if title is None or title.title != "feature":
        above = [scenario.key for scenario in scenarios if scenario.line <= fault.line]
        below = [scenario.key for scenario in scenarios if scenario.line > fault.line]
        if below and line.lstrip().startswith("@"):
            key = below[0]
        elif above:
            key = above[-1]
    hint = fault.hint or _hint(line, title, gherkin.language.step_slip(line))
    return replace(fault, hint=hint, scenario=key)


def _hint(
    line: str,
    title: Slip | None,
    step: Slip | None,
) -> str:
    if line.strip().startswith("'''"):
        return 'mark a doc string with """'
    slip = title or step
    if slip and slip.kind != "exact":
        return f"did you mean `{slip.keyword} …`?"
    if title and title.title == "feature":
        return "a file or a fence can have only one Feature"
    return ""
