"""What does one file say?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs._blocks import Block
from pytest_arena.scenarios.specs._features import features
from pytest_arena.scenarios.specs._fences import fences
from pytest_arena.scenarios.specs._lint import Lint
from pytest_arena.scenarios.specs._mdg import mdg, tagged_headings, unread_marks
from pytest_arena.scenarios.specs._near import near_step, near_title
from pytest_arena.scenarios.specs._unread import commented_headings, unread_headings
from pytest_arena.scenarios.specs._values import Problem, Specification
from pytest_arena.scenarios.specs.gherkin import grown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena.scenarios.specs._features import Found
    from pytest_arena.scenarios.specs._values import Scenario
    from pytest_arena.scenarios.specs.gherkin import Fault, Tree

__all__ = ["joined", "parse"]

_FAULTS = 5


def parse(text: str, spec: str, *, language: str = "en") -> Specification:
    """Return what one file's text says; what is wrong with it stands in its problems.

    Args:
        text: with any line ends; a byte order mark is no matter.
        spec: the file's path from the root. Its ending decides: ``.feature`` is Gherkin,
            ``.feature.md`` is Gherkin in headings and bullets, of anything else the fences are
            read that are marked as ``gherkin``.
        language: the code of the language where the text names none.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    name = spec.lower()
    if name.endswith(".feature"):
        return _read([Block(spec=spec, text=text, language=language)], spec)
    if name.endswith(".feature.md"):
        return _read([mdg(text, spec, language)], spec)
    found = fences(text, spec, language)
    return _read(found.blocks, spec, found.problems)


def _read(blocks: Iterable[Block], spec: str, problems: Sequence[Problem] = ()) -> Specification:
    parts = [_block(block) for block in blocks]
    whole = joined([*parts, Specification(files=(spec,), problems=tuple(problems))])
    features = {(one.name, one.line): one for one in whole.features}
    return replace(
        whole,
        files=(spec,),
        features=tuple(sorted(features.values(), key=lambda one: one.line)),
        problems=tuple(sorted(whole.problems, key=lambda one: (one.line, one.what))),
    )


def joined(parts: Sequence[Specification]) -> Specification:
    """Return what several say, one after the other."""
    return Specification(
        files=tuple(one for part in parts for one in part.files),
        features=tuple(one for part in parts for one in part.features),
        scenarios=tuple(one for part in parts for one in part.scenarios),
        problems=tuple(one for part in parts for one in part.problems),
    )


def _block(block: Block) -> Specification:
    tree = grown(
        block.text,
        first_line=block.first_line,
        language_code=block.language,
        is_markdown=block.is_markdown,
    )
    found = features(tree, block)
    if found is None:
        return Specification(problems=tuple(_unreadable(tree, block)))
    scenarios = tuple(part.scenario for part in found.scenarios)
    problems = _faults(tree, block, scenarios)
    faulty = frozenset(problem.scenario for problem in problems)
    lint = Lint(block=block, language=tree.language, faulty=faulty)
    told = {problem.line for problem in problems}
    problems += [one for one in _overlooked(tree, block, found) if one.line not in told]
    told.update(problem.line for problem in problems)
    problems += [one for one in lint.problems(found) if one.line not in told]
    return Specification(features=(found.feature,), scenarios=scenarios, problems=tuple(problems))


def _faults(tree: Tree, block: Block, scenarios: Sequence[Scenario]) -> list[Problem]:
    """The faults, some of each scenario: what follows from one is not told a thousand times."""
    told: dict[str, list[Problem]] = {}
    for fault in tree.faults:
        of_one = told.setdefault(_faulty(fault, tree, block, scenarios), [])
        if len(of_one) < _FAULTS:
            of_one.append(_fault(fault, tree, block, scenarios))
    return [problem for of_one in told.values() for problem in of_one]


def _overlooked(tree: Tree, block: Block, found: Found) -> Iterator[Problem]:
    if block.is_markdown:
        yield from tagged_headings(block, tree.language)
        yield from unread_marks(block, tree.language, found)
    else:
        yield from unread_headings(block, tree.language, found)
        yield from commented_headings(block, tree.language, found)


def _unreadable(tree: Tree, block: Block) -> Iterator[Problem]:
    """Only the first fault: all others follow from it."""
    if block.is_markdown:
        yield from tagged_headings(block, tree.language)
    title = tree.language.title("feature")
    if not tree.faults:
        yield Problem(
            spec=block.spec,
            line=block.first_line,
            what=f"no Gherkin stands here; expected {title}",
        )
    for fault in tree.faults[:1]:
        problem = _fault(fault, tree, block, ())
        lost = sum(_is_scenario(line, tree) for line in block.lines)
        counted = f"; {lost} scenarios in it could not be read" if lost else ""
        yield replace(problem, what=problem.what + counted)


def _is_scenario(line: str, tree: Tree) -> bool:
    near = near_title(line, tree.language)
    return near is not None and near.title in {"scenario", "scenarioOutline"}


def _fault(fault: Fault, tree: Tree, block: Block, scenarios: Sequence[Scenario]) -> Problem:
    return Problem(
        spec=block.spec,
        line=fault.line,
        what=fault.what,
        hint=fault.hint or _hint(block.line(fault.line), tree),
        scenario=_faulty(fault, tree, block, scenarios),
    )


def _faulty(fault: Fault, tree: Tree, block: Block, scenarios: Sequence[Scenario]) -> str:
    """The scenario that a fault is in; a tag is of the one below, a second Feature of none."""
    line = block.line(fault.line)
    near = near_title(line, tree.language)
    if near and near.title == "feature":
        return ""
    above = [one.key for one in scenarios if one.line <= fault.line][-1:]
    below = [one.key for one in scenarios if one.line > fault.line][:1]
    found = below or above if line.lstrip().startswith("@") else above
    return found[0] if found else ""


def _hint(line: str, tree: Tree) -> str:
    if line.strip().startswith("'''"):
        return 'mark a doc string with """'
    step, title = near_step(line, tree.language), near_title(line, tree.language)
    if title and title.slip == "exact":
        return "a file or a fence has one Feature" if title.title == "feature" else ""
    near = title or step
    return f"did you mean `{near.keyword} …`?" if near and near.slip != "exact" else ""
