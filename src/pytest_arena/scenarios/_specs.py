"""Reads specifications. A scenario is one pickle of Gherkin's compiler: a row is a scenario."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from glob import glob
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gherkin.dialect import Dialect
from gherkin.errors import CompositeParserException, ParserException
from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler
from markdown_it import MarkdownIt

from pytest_arena.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Kind = Literal["given", "when", "then"]
Pairs = tuple[tuple[str, str], ...]

_KINDS: dict[str, Kind] = {"Context": "given", "Action": "when", "Outcome": "then"}
_FENCE = re.compile(r"\W*(gherkin|feature|cucumber)\b", re.IGNORECASE)
# A line that names the feature, or a language, whose word for it may be another one.
_FEATURE = re.compile(r"(?m)^\s*(?:#\s*language\b|(?:Feature|Business Need|Ability):)")
_SUFFIXES = (".feature", ".md", ".markdown")
# The first word of a line and its keyword may differ by a typing error.
_SIMILAR = 0.76
_LEAST_LETTERS = 4


@dataclass(frozen=True, slots=True)
class Step:
    """A step. And and But have the kind of the step before them."""

    kind: Kind
    text: str
    template: str
    """The text as it is written, with the placeholders of an outline."""
    line: int
    more: tuple[object, ...] = ()
    """The rows of its table, or its doc string."""

    def __str__(self) -> str:
        return f"{self.kind.title()} {self.text}"


@dataclass(frozen=True)
class ScenarioSpec:
    """A scenario of a specification, or one row of a Scenario Outline."""

    feature: str
    name: str
    template: str
    """The name as it is written, which has the placeholders of an outline."""
    spec: str
    """The path of the file, relative to pytest's root."""
    line: int
    start: int
    """The line of its keyword. ``line`` is the line of a row of an outline."""
    tags: tuple[str, ...]
    steps: tuple[Step, ...]
    row: Pairs = ()
    """The columns and the values of a row of the examples."""

    @property
    def label(self) -> str:
        """The name, with the values of a row."""
        return f"{self.name} [{row_text(self.row)}]" if self.row else self.name

    @property
    def key(self) -> str:
        """The name by which runs and the lock file identify the scenario."""
        return f"{self.feature} :: {self.label}"

    @property
    def place(self) -> str:
        """The file and the line."""
        return f"{self.spec}:{self.line}"

    @property
    def revision(self) -> str:
        """The hash of the steps. Layout, names, And and But do not change it."""
        steps = [[step.kind, canonical(step.text), *step.more] for step in self.steps]
        text = json.dumps(steps, ensure_ascii=False)
        return blake2b(text.encode(), digest_size=4).hexdigest()

    def kinds(self, kind: Kind) -> list[int]:
        """Return the numbers of the steps of a kind."""
        return [number for number, step in enumerate(self.steps) if step.kind == kind]


@dataclass(frozen=True)
class Specification:
    """All scenarios of a project, and the texts of their files."""

    scenarios: tuple[ScenarioSpec, ...]
    files: dict[str, str] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, list[ScenarioSpec]]:
        """The scenarios by each name that a marker may use."""
        found: dict[str, list[ScenarioSpec]] = {}
        for scenario in self.scenarios:
            names = {scenario.name, scenario.template, scenario.label}
            names |= {f"{scenario.feature} :: {name}" for name in names}
            for name in names.union(scenario.tags):
                found.setdefault(name, []).append(scenario)
        return found


def row_text(row: Pairs) -> str:
    """Return the values of a row in one line."""
    return ", ".join(f"{column}={value}" for column, value in row)


def canonical(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def read_specs(patterns: Sequence[str], root: Path) -> Specification:
    """Read the specifications that files, folders or patterns name."""
    scenarios: list[ScenarioSpec] = []
    files: dict[str, str] = {}
    for path in _files(patterns, root):
        spec = relative(path, root)
        files[spec] = path.read_text(encoding="utf-8-sig", errors="replace")
        for block in _blocks(files[spec], spec):
            scenarios += _scenarios(*block, spec)
    if not scenarios:
        raise ScenarioError(
            f"no scenario was found in {', '.join(patterns)}",
            why="the run would check no scenario, and would pass",
            cause=f"{len(files)} files were read, relative to {root}",
            fix="name .feature files, or Markdown with fences that begin with ```gherkin",
        )
    _check_names(scenarios)
    return Specification(tuple(scenarios), files)


@cache
def relative(path: Path, root: Path) -> str:
    """Return a path relative to the root, with slashes."""
    if path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix()


def _files(patterns: Sequence[str], root: Path) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = root / pattern
        if path.is_dir():
            paths = [each for each in path.rglob("*") if each.suffix in _SUFFIXES]
        else:
            names = glob(str(path), recursive=True)  # noqa: PTH207 - an absolute pattern
            paths = [Path(name) for name in names if Path(name).is_file()]
        if not paths:
            raise ScenarioError(
                f"no specification was found: {pattern}",
                why="its scenarios would be missing in the report",
                cause=f"paths are relative to {root}",
                fix="arena_specs = docs/**/*.md   (files, folders or patterns)",
            )
        found |= dict.fromkeys(sorted(paths))
    return [*found]


def _blocks(text: str, spec: str) -> Iterator[tuple[str, int, str]]:
    """Yield each block of Gherkin, the number of the lines above it, and the heading before it."""
    if spec.endswith(".feature"):
        yield text, 0, ""
        return
    heading = ""
    before = ""
    for token in MarkdownIt("commonmark").parse(text):
        if is_gherkin(token):
            first, _ = token.map or (0, 0)
            yield token.content, first + 1, heading
        elif before == "heading_open":
            heading = token.content
        before = token.type


def is_gherkin(token: Any) -> bool:
    """Return whether a token of markdown-it is a fence with Gherkin."""
    return token.type == "fence" and bool(_FENCE.match(token.info))


def _scenarios(block: str, above: int, heading: str, spec: str) -> Iterator[ScenarioSpec]:
    # Empty lines above the block give each node its line in the file.
    text = "\n" * above + block
    if above and not _FEATURE.search(block):
        # A fence without a feature gets one in place of its opening line.
        text = "\n" * (above - 1) + f"Feature: {heading}\n{block}"
    document = _parsed(text, spec)
    document["uri"] = spec
    pickles: list[Any] = Compiler().compile(document)
    nodes = [*_nodes(document)]
    compiled = {pickle["astNodeIds"][0] for pickle in pickles}
    feature = document.get("feature")  # None for comments alone
    dialect: Any = Dialect.for_name(feature["language"] if feature else "en")
    for node in nodes:
        _check_node(node, compiled, dialect.spec, spec)
    if not pickles:
        file = {"keyword": "", "name": spec, "location": {"line": above + 1}}
        raise _wrong(file, spec, "the feature has no scenario", "add one, or remove it")
    by_id = {node["id"]: node for node in nodes if "id" in node}
    for pickle in pickles:
        yield _scenario(pickle, by_id, feature["name"], spec)


def _parsed(text: str, spec: str) -> Any:
    try:
        return Parser().parse(text)
    except (CompositeParserException, ParserException) as error:
        errors = getattr(error, "errors", [error])
        line = errors[0].location.get("line", 1)
        raise ScenarioError(
            f"{spec}:{line} is no valid Gherkin",
            why="its scenarios would be missing in the report",
            cause="\n".join(dict.fromkeys(map(str, errors))),
            fix="correct that line",
        ) from None


def _nodes(value: Any) -> Iterator[Any]:
    """Yield the nodes of a document."""
    if isinstance(value, list):
        for each in value:
            yield from _nodes(each)
    elif isinstance(value, dict):
        yield value
        yield from _nodes([*value.values()])


def _check_node(node: Any, compiled: set[str], words: Any, spec: str) -> None:
    """Refuse what the parser or the compiler would silently drop."""
    is_scenario = "examples" in node
    if is_scenario and not node["steps"]:
        raise _wrong(node, spec, f"{node['name']!r} has no step", "write its steps")
    if is_scenario and node["id"] not in compiled:
        fix = "write a row below the names of the columns"
        raise _wrong(node, spec, f"the outline {node['name']!r} has no row", fix)
    # A description is before the scenarios of a feature, or before the steps of a scenario.
    kinds = ["given", "when", "then", "and", "but"]
    end = r"[\s:]"
    what = "a step"
    if "children" in node:
        kinds = ["scenario", "scenarioOutline"]
        end = ":"
        what = "a scenario"
    elif "steps" not in node:
        return
    keywords = {re.split(end, word.casefold())[0] for kind in kinds for word in words[kind]} - {"*"}
    for line in node["description"].splitlines():
        first = re.split(end, line.strip().casefold())[0]
        cutoff = _SIMILAR if "steps" in node and len(first) >= _LEAST_LETTERS else 1
        if difflib.get_close_matches(first, keywords, 1, cutoff):
            raise _wrong(
                node,
                spec,
                f"Gherkin reads this line as a description, not as {what}: {line.strip()}",
                "write the keyword as the other lines have it, or change the first word",
            )


def _wrong(node: Any, spec: str, what: str, fix: str) -> ScenarioError:
    """Return the error about a node."""
    return ScenarioError(
        f"{spec}:{node['location']['line']}: {what}",
        why="the run would not check what the specification says",
        cause=f"{node['keyword'].strip()}: {node['name']}",
        fix=fix,
    )


def _scenario(pickle: Any, by_id: dict[str, Any], feature: str, spec: str) -> ScenarioSpec:
    node, place = by_id[pickle["astNodeIds"][0]], by_id[pickle["astNodeIds"][-1]]
    row: Pairs = ()
    for examples in node["examples"]:
        if place in examples["tableBody"]:
            cells = zip(examples["tableHeader"]["cells"], place["cells"], strict=True)
            row = tuple((column["value"], cell["value"]) for column, cell in cells)
    kind: Kind = "given"
    steps = []
    for step in pickle["steps"]:
        written = by_id[step["astNodeIds"][0]]
        kind = _KINDS.get(step["type"], kind)
        more = _argument(step.get("argument"))
        steps.append(Step(kind, step["text"], written["text"], written["location"]["line"], more))
    return ScenarioSpec(
        feature=canonical(feature),
        name=canonical(pickle["name"]),
        template=canonical(node["name"]),
        spec=spec,
        line=place["location"]["line"],
        start=node["location"]["line"],
        tags=tuple(tag["name"] for tag in pickle["tags"]),
        steps=tuple(steps),
        row=row,
    )


def _argument(argument: Any) -> tuple[object, ...]:
    if not argument:
        return ()
    if "docString" in argument:
        return (argument["docString"]["content"],)
    rows = argument["dataTable"]["rows"]
    return tuple(tuple(cell["value"] for cell in row["cells"]) for row in rows)


def _check_names(scenarios: list[ScenarioSpec]) -> None:
    first: dict[str, ScenarioSpec] = {}
    for scenario in scenarios:
        other = first.setdefault(scenario.key, scenario)
        if other is not scenario:
            raise ScenarioError(
                f"two scenarios have one name: {scenario.key}",
                why="a test could not say which one it proves",
                cause=f"{other.place}\n{scenario.place}",
                fix="rename one of them, or its feature",
            )


# The lock file of a project: the accepted steps of each scenario, and the agreed gaps

LOCK = "scenarios.lock"
"""The name of the file in pytest's root folder."""
_HEAD = """\
# scenarios.lock, version 1
# The accepted steps of each scenario. `pytest --scenarios-accept` writes this file.
# Add a gap to a line by hand: gap until 2027-03-31: why nobody can test the scenario yet
"""
_EXAMPLE = "Feature :: Scenario  3265ea09  gap until 2027-03-31: tried by hand"
_LINE = re.compile(
    r"(?P<key>\S.*?)\s+(?P<revision>[0-9a-f]{8})"
    r"(?:\s+gap until (?P<until>\d{4}-\d\d-\d\d): (?P<reason>\S.*))?"
)


@dataclass(frozen=True, slots=True)
class Locked:
    """The accepted version of one scenario."""

    key: str
    revision: str
    """The hash of its steps."""
    until: str = ""
    """The last day on which a strict run accepts the unproven scenario, as ``2027-03-31``."""
    reason: str = ""

    @property
    def gap(self) -> str:
        """The agreed gap, "" without one."""
        return f"gap until {self.until}: {self.reason}" if self.until else ""


Lock = dict[str, Locked]
"""The lines of the lock file, by the keys of their scenarios."""


def read_lock(path: Path) -> Lock:
    """Read the file. Without the file the lock is empty."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    lock: Lock = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        place = f"{path.name}:{number}"
        match = _LINE.fullmatch(line)
        if match is None:
            raise _malformed(place, line)
        locked = Locked(**match.groupdict(default=""))
        if lock.setdefault(locked.key, locked) is not locked:
            raise _malformed(place, f"a second line for {locked.key}")
    return lock


def accept(path: Path, scenarios: Iterable[ScenarioSpec]) -> None:
    """Write the present steps of all scenarios to the file. Gaps stay."""
    lock = read_lock(path)
    lines = []
    for scenario in scenarios:
        old = lock.get(scenario.key)
        lines.append(f"{scenario.key}  {scenario.revision}  {old.gap if old else ''}".rstrip())
    path.write_text("\n".join([_HEAD, *sorted(lines), ""]), encoding="utf-8")


def _malformed(place: str, cause: str) -> ScenarioError:
    return ScenarioError(
        f"{place} is not a valid line of the lock file",
        why="the file records what the project has agreed to",
        cause=cause,
        fix="restore the file from git, or delete it and run pytest --scenarios-accept.\n"
        f"A line for each scenario: {_EXAMPLE}",
    )
