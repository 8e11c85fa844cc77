"""What stands on the page of a specification: one file that asks for nothing from anywhere."""

import posixpath
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from pytest_arena.scenarios.outputs._phrases import counted, judged_count, other_tests
from pytest_arena.scenarios.specs._fences import (
    is_gherkin,
    language_of,
    without_front_matter,
)
from pytest_arena.scenarios.specs._gherkin import cells
from pytest_arena.scenarios.specs._specification import Row, literals

_UNDER_A_HEAD = re.compile(r"[\s|:-]*-[\s|:-]*")  # of a table in Markdown
# With raw HTML known as such: a fence in a comment is none, as for whoever read the scenarios.
_MARKDOWN = {"html": True, "xhtmlOut": False}
_PLACE = re.compile(r"([^\s:]+:\d+)")


def page(document: Document, sources: Mapping[str, str]) -> str:
    """Return the specification as one HTML file, with what is proven of it.

    It is the same for the same arguments, and asks for nothing: no font, image or script from
    elsewhere. Without a script all is shown, only the filters are missing. 2,000 scenarios take
    about two seconds.

    Args:
        document: the scenarios with their verdicts.
        sources: the text of each file by its path, as in ``Scenario.spec``. The scenarios of a
            file that is missing, or has changed since, are shown as they were read.
    """
    every = chapters(document, sources)
    by_path = {chapter.path: chapter for chapter in every}
    judged = [pair for chapter in every for pair in chapter.judged.items()]
    places = {it.scenario.place: anchor for anchor, it in judged}
    parser = MarkdownIt("commonmark", _MARKDOWN).enable(["table", "strikethrough"])
    macros: Any = _template().make_module(
        {
            "anchor_of": partial(_anchor_of, by_path),
            "by_path": by_path,
            "document": document,
            "linked": lambda text: [
                (part, places.get(part)) for part in _PLACE.split(text)
            ],
            "rendered": partial(_rendered, parser),
            "rules": Counter(map(_rule, document.scenarios)),
        }
    )
    for name, macro in macros.by_token.items():
        parser.add_render_rule(
            name, lambda _, tokens, at, *more, it=macro: str(it(tokens[at], more[1]))
        )
    html = macros.page([_shown(chapter, parser) for chapter in every])
    # What cannot be written as UTF-8, and what HTML has no place for, would break the file.
    return str(html).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _shown(chapter: Chapter, parser: MarkdownIt) -> dict[str, Any]:
    """One file: its lines of Gherkin; or what it calls itself in Markdown, and its blocks."""
    blocks, lines, title = list[SyntaxTreeNode](), list[tuple[int, str]](), Markup("")
    if chapter.is_as_read and chapter.path.lower().endswith(".feature"):
        lines = list(enumerate(chapter.lines, 1))
    elif chapter.is_as_read:
        blocks = _blocks(chapter, parser)
        if blocks and blocks[0].tag == "h1":
            title = _rendered(parser, blocks.pop(0).children[0], chapter)
    return {"chapter": chapter, "title": title, "blocks": blocks, "lines": lines}


def _file(name: str) -> str:
    return (files("pytest_arena.scenarios.outputs") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.globals |= {
        "below_headings": _below_headings,
        "by_kind": attrgetter("kind"),
        "by_prose": lambda block: not any(map(is_gherkin, block.to_tokens())),
        "cells": cells,
        "comments": re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL),
        "counted": counted,
        "dedent": dedent,
        "groups": lambda every, key: [
            (it, list(of_it)) for it, of_it in groupby(every, key)
        ],
        "hashed": _hash,
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
    # Its line ends and its indentation are for those who read the template.
    return environment.from_string(
        "".join(map(str.strip, _file("page.html").splitlines()))
    )


def _rule(judged: JudgedScenario) -> str:
    """What it is grouped by: the business rule's id, else the name of the Gherkin rule."""
    return judged.scenario.requirement or judged.scenario.rule


def _rows_by_line(judged: JudgedScenario | None) -> dict[int, Row]:
    """The rows whose status is shown: those of an Outline that has a test."""
    return (
        {row.line: row for row in judged.scenario.rows}
        if judged and judged.tests
        else {}
    )


def _steps_by_line(judged: JudgedScenario | None) -> dict[int, JudgedStep]:
    pairs = zip(judged.scenario.steps, judged.steps, strict=False) if judged else ()
    return {step.line: verdict for step, verdict in pairs}


# Of a file in Markdown.


def _blocks(chapter: Chapter, parser: MarkdownIt) -> list[SyntaxTreeNode]:
    """Its blocks, whose headings have got their ids, and what they may be below."""
    text = without_front_matter("\n".join(chapter.lines))
    blocks = SyntaxTreeNode(parser.parse(text)).children
    # Nothing stands below a scenario but its own lines, and nothing begins inside of it.
    slugs, levels = Anchors(), dict.fromkeys(chapter.ids, "h6")
    for scenario in (judged.scenario for judged in chapter.judged.values()):
        lines = [
            0,
            *(step.line for step in scenario.steps),
            *(row.line for row in scenario.rows),
        ]
        levels |= dict.fromkeys(range(scenario.line + 1, max(lines)), "h7")
    for block in (block for block in blocks if block.type == "heading"):
        # A link inside of the file knows a heading as the forges do: "#4-business-rules".
        words = re.sub(r"[^\w\- ]", "", block.children[0].content.lower())
        slug = slugs.take(words.replace(" ", "-"))
        block.meta["id"] = chapter.anchors.take(f"{chapter.anchor}--{slug}")
        chapter.headings[slug] = block.meta["id"]
        block.meta["level"] = levels.get((block.map or (0, 0))[0] + 1, block.tag)
    return blocks


def _below_headings(blocks: Sequence[SyntaxTreeNode]) -> Iterator[list[SyntaxTreeNode]]:
    """Yield what stands before the first heading, then each heading with all that is below it."""
    part: list[SyntaxTreeNode] = []
    highest = "h6"
    for block in blocks:
        if block.type == "heading" and block.meta["level"] <= highest:
            yield part
            part, highest = [], block.meta["level"]
        part.append(block)
    yield part


def _lines_of(
    part: Sequence[SyntaxTreeNode], chapter: Chapter
) -> list[tuple[int, str]]:
    """The lines of a scenario that is a heading, without the marks of Markdown."""
    (begin, _), (_, end) = part[0].map or (0, 0), part[-1].map or (0, 0)
    return [
        (number, re.sub(r"^\s*(?:#+|[*+-])\s+", "", line))
        for number, line in enumerate(chapter.lines[begin:end], begin + 1)
        if not _UNDER_A_HEAD.fullmatch(line)
    ]


def _rendered(
    parser: MarkdownIt, node: SyntaxTreeNode, chapter: Chapter, depth: int = 0
) -> Markup:
    """A node as markup; ``depth`` is that of the headings in it."""
    env = {"chapter": chapter, "depth": depth}
    return Markup(parser.renderer.render(node.to_tokens(), parser.options, env))  # noqa: S704 - the library escapes, and so do the macros


def _numbered(token: Token) -> list[tuple[int, str]]:
    return list(enumerate(token.content.split("\n"), (token.map or [0])[0] + 2))


def _anchor_of(
    by_path: Mapping[str, Chapter], href: str, chapter: Chapter
) -> str | None:
    """The id of what a link leads to, if it stands on this page."""
    path, _, heading = unquote(href).partition("#")
    if not path:
        return chapter.headings.get(heading)
    target = by_path.get(
        posixpath.normpath(posixpath.join(posixpath.dirname(chapter.path), path))
    )
    return target.anchor if target else None
