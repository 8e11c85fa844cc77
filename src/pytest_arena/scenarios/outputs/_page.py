"""Writes the HTML page of a specification."""

import posixpath
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from operator import attrgetter
from textwrap import dedent
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, StrictUndefined, Template
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from markupsafe import Markup

from pytest_arena._values import counted
from pytest_arena.scenarios.evidence._claim import BROKEN
from pytest_arena.scenarios.evidence._document import (
    Document,
    JudgedScenario,
    JudgedStep,
)
from pytest_arena.scenarios.evidence._verdicts import row_verdict
from pytest_arena.scenarios.outputs._chapters import (
    Anchors,
    Chapter,
    chapters,
    lines_as_read,
    title,
)
from pytest_arena.scenarios.outputs._phrases import judged_count, other_tests
from pytest_arena.scenarios.specs._fences import (
    is_gherkin,
    language_of,
    without_front_matter,
)
from pytest_arena.scenarios.specs._gherkin import cells
from pytest_arena.scenarios.specs._specification import Row, literals

_UNDER_A_HEAD = re.compile(r"[\s|:-]*-[\s|:-]*")  # of a table in Markdown
# With raw HTML, the parser ignores a fence in a comment, as the reader of scenarios does.
_MARKDOWN = {"html": True, "xhtmlOut": False}
_MARK = re.compile(r"^\s*(?:#+|[*+-])\s+")
_PLACE = re.compile(r"([^\s:]+:\d+)")


def page(document: Document, sources: Mapping[str, str]) -> str:
    """Return the specification as one HTML file, with its verdicts.

    The same arguments give the same page. It loads no font, image or script. Without scripts the
    page shows everything, but no filters. 2,000 scenarios take about two seconds.

    Args:
        document: the scenarios with their verdicts.
        sources: the text of each file by its path, as in ``ScenarioSpec.spec``. If a file was
            removed or changed, the page shows its scenarios as they were read.
    """
    all_chapters = chapters(document, sources)
    by_path = {chapter.path: chapter for chapter in all_chapters}
    places = {
        judged.scenario.place: anchor
        for chapter in all_chapters
        for anchor, judged in chapter.judged.items()
    }
    parser = MarkdownIt("commonmark", _MARKDOWN).enable(["table", "strikethrough"])
    macros: Any = _template().make_module(
        {
            "anchor_of": partial(_anchor_of, by_path),
            "by_path": by_path,
            "document": document,
            "linked": partial(_linked, places),
            "rendered": partial(_rendered, parser),
            "rules": Counter(map(_rule, document.scenarios)),
        }
    )
    for name, macro in macros.by_token.items():
        parser.add_render_rule(name, _render_rule(macro))
    html = str(macros.page([_shown(chapter, parser) for chapter in all_chapters]))
    # HTML allows no zero byte. UTF-8 cannot encode half of a surrogate pair.
    return html.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _render_rule(macro: Any) -> Callable[..., str]:
    """Return a rule of the Markdown renderer that calls a macro of the template."""

    def render(
        _renderer: object,
        tokens: Sequence[Token],
        index: int,
        _options: object,
        env: object,
    ) -> str:
        return str(macro(tokens[index], env))

    return render


def _linked(
    places: Mapping[str, str],
    text: str,
) -> list[tuple[str, str | None]]:
    """Return the parts of a text. A place has the id of its scenario, and other parts None."""
    return [(part, places.get(part)) for part in _PLACE.split(text)]


def _shown(chapter: Chapter, parser: MarkdownIt) -> dict[str, Any]:
    """Return the content of one file: lines of Gherkin, or the title and blocks of Markdown."""
    blocks = []
    lines = []
    title = Markup("")
    if chapter.is_as_read and chapter.path.lower().endswith(".feature"):
        lines = list(enumerate(chapter.lines, 1))
    elif chapter.is_as_read:
        blocks = _blocks(chapter, parser)
        if blocks and blocks[0].tag == "h1":
            title = _rendered(parser, blocks.pop(0).children[0], chapter)
    return {"chapter": chapter, "title": title, "blocks": blocks, "lines": lines}


def _file(name: str) -> str:
    path = files("pytest_arena.scenarios.outputs") / name
    return path.read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    names = {
        "below_headings": _below_headings,
        "by_kind": attrgetter("kind"),
        "by_prose": lambda block: not any(map(is_gherkin, block.to_tokens())),
        "cells": cells,
        "comments": re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL),
        "counted": counted,
        "dedent": dedent,
        "groups": _groups,
        "hashed": lambda text: b64encode(sha256(text.encode()).digest()).decode(),
        "is_gherkin": is_gherkin,
        "judged_count": judged_count,
        "language_of": language_of,
        "lines_as_read": lines_as_read,
        "lines_of": _lines_of,
        "literals": literals,
        "numbered": _numbered,
        "other_tests": other_tests,
        "placeholders": re.compile(r"(<[^<>]+>)").split,
        "row_verdict": row_verdict,
        "rows_by_line": _rows_by_line,
        "rule_of": _rule,
        "sabotages": BROKEN,
        "script": _file("page.js"),
        "style": _file("page.css"),
        "steps_by_line": _steps_by_line,
        "title": title,
    }
    environment.globals.update(names)
    # The page needs no line ends and indentation of the template.
    lines = _file("page.html").splitlines()
    return environment.from_string("".join(map(str.strip, lines)))


def _groups(
    values: Iterable[object], key: Callable[[object], object]
) -> list[tuple[object, list[object]]]:
    """Return groups of neighbours with the same key."""
    return [(name, list(group)) for name, group in groupby(values, key)]


def _rule(judged: JudgedScenario) -> str:
    """Return the rule of a scenario: the business rule's id, or the name of the Gherkin rule."""
    return judged.scenario.requirement or judged.scenario.rule


def _rows_by_line(judged: JudgedScenario | None) -> dict[int, Row]:
    """Return the rows of an Outline with a test by their lines. The page shows their statuses."""
    if judged and judged.tests:
        return {row.line: row for row in judged.scenario.rows}
    return {}


def _steps_by_line(judged: JudgedScenario | None) -> dict[int, JudgedStep]:
    if judged is None:
        return {}
    lines = [step.line for step in judged.scenario.steps]
    return dict(zip(lines, judged.steps, strict=False))


# Files in Markdown.


def _blocks(chapter: Chapter, parser: MarkdownIt) -> list[SyntaxTreeNode]:
    """Return the blocks of a file. Headings have ids and levels."""
    text = without_front_matter("\n".join(chapter.lines))
    blocks = SyntaxTreeNode(parser.parse(text)).children
    slugs = Anchors()
    levels = _levels(chapter)
    for block in blocks:
        if block.type != "heading":
            continue
        # Links inside of the file use the ids of GitHub: "#4-business-rules".
        words = re.sub(r"[^\w\- ]", "", block.children[0].content.lower())
        slug = slugs.take(words.replace(" ", "-"))
        anchor = chapter.anchors.take(f"{chapter.anchor}--{slug}")
        chapter.headings[slug] = anchor
        begin, _ = block.map or (0, 0)
        block.meta["id"] = anchor
        block.meta["level"] = levels.get(begin + 1, block.tag)
    return blocks


def _levels(chapter: Chapter) -> dict[int, str]:
    """Return the levels of headings by line. A scenario is below other headings.

    A line inside of a scenario is no heading.
    """
    levels = dict.fromkeys(chapter.ids, "h6")
    for scenario in chapter.scenarios:
        steps = [step.line for step in scenario.steps]
        rows = [row.line for row in scenario.rows]
        last = max([0, *steps, *rows])
        levels |= dict.fromkeys(range(scenario.line + 1, last), "h7")
    return levels


def _below_headings(blocks: Sequence[SyntaxTreeNode]) -> Iterator[list[SyntaxTreeNode]]:
    """Yield the blocks before the first heading, then each heading with the blocks below it."""
    part: list[SyntaxTreeNode] = []
    highest = "h6"
    for block in blocks:
        if block.type == "heading" and block.meta["level"] <= highest:
            yield part
            part = []
            highest = block.meta["level"]
        part.append(block)
    yield part


def _lines_of(
    part: Sequence[SyntaxTreeNode], chapter: Chapter
) -> list[tuple[int, str]]:
    """Return the lines of a scenario that is a heading, without the marks of Markdown."""
    begin, _ = part[0].map or (0, 0)
    _, end = part[-1].map or (0, 0)
    return [
        (number, _MARK.sub("", line))
        for number, line in enumerate(chapter.lines[begin:end], begin + 1)
        if not _UNDER_A_HEAD.fullmatch(line)
    ]


def _rendered(
    parser: MarkdownIt,
    node: SyntaxTreeNode,
    chapter: Chapter,
    depth: int = 0,
) -> Markup:
    """Return a node as markup. ``depth`` is the depth of the node's headings."""
    env = {"chapter": chapter, "depth": depth}
    return Markup(parser.renderer.render(node.to_tokens(), parser.options, env))  # noqa: S704 - the library escapes, and so do the macros


def _numbered(token: Token) -> list[tuple[int, str]]:
    first_line = (token.map or [0])[0] + 2
    return list(enumerate(token.content.split("\n"), first_line))


def _anchor_of(
    by_path: Mapping[str, Chapter],
    href: str,
    chapter: Chapter,
) -> str | None:
    """Return the id of a link's target, or None if the page does not have the target."""
    path, _, heading = unquote(href).partition("#")
    if not path:
        return chapter.headings.get(heading)
    folder = posixpath.dirname(chapter.path)
    target = by_path.get(posixpath.normpath(posixpath.join(folder, path)))
    if target is None:
        return None
    return target.anchor
