"""What stands on the page of a specification: one file that asks for nothing from anywhere."""

import posixpath
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from textwrap import dedent
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, StrictUndefined, Template
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from markupsafe import Markup, escape

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
    Line,
    cells,
    chapters,
    lines_as_read,
    title,
)
from pytest_arena.scenarios.outputs._phrases import counted, judged_count
from pytest_arena.scenarios.specs._fences import is_gherkin, without_front_matter
from pytest_arena.scenarios.specs._specification import Row, literals

Gherkin = Callable[..., Markup]


_LANGUAGE = re.compile(r"\s*#\s*language\s*:\s*([a-z]{2,3})(?:-([A-Z]{2}))?\s*$")
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
    anchors = {chapter.path: chapter.anchor for chapter in every}
    judged = [pair for chapter in every for pair in chapter.judged.items()]
    places = {it.scenario.place: anchor for anchor, it in judged}
    macros: Any = _template().make_module(
        {
            "by_path": {chapter.path: chapter for chapter in every},
            "document": document,
            "linked": lambda text: [(part, places.get(part)) for part in _PLACE.split(text)],
            "rules": Counter(map(_rule, document.scenarios)),
        }
    )
    html = macros.page([_section(chapter, anchors, macros.gherkin) for chapter in every])
    # What cannot be written as UTF-8, and what HTML has no place for, would break the file.
    return str(html).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _section(chapter: Chapter, anchors: Mapping[str, str], gherkin: Any) -> dict[str, Any]:
    """One file: what it calls itself, and its body."""
    heading = body = Markup("")
    if chapter.is_as_read and chapter.path.lower().endswith(".feature"):
        body = gherkin(enumerate(chapter.lines, 1), chapter, 3)
    elif chapter.is_as_read:
        heading, body = markdown(chapter, anchors, gherkin)
    # Whatever the text does not show where it was expected is shown nevertheless.
    if left := chapter.left():
        body += gherkin(lines_as_read(left), chapter, 3)
    features = {judged.scenario.feature for judged in chapter.judged.values()} - {""}
    feature = next(iter(features)) if len(features) == 1 else chapter.path
    name = heading.striptags() or feature
    return {"chapter": chapter, "title": heading, "name": name, "body": body}


def _file(name: str) -> str:
    return (files("pytest_arena.scenarios.outputs") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.globals |= {
        "cells": cells,
        "counted": counted,
        "dedent": dedent,
        "groups": lambda lines: [
            (kind, list(of_kind)) for kind, of_kind in groupby(lines, lambda line: line.kind)
        ],
        "hashed": _hash,
        "judged_count": judged_count,
        "language": _language,
        "literals": literals,
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
    return environment.from_string("".join(map(str.strip, _file("page.html").splitlines())))


def _rule(judged: JudgedScenario) -> str:
    """What it is grouped by: the business rule's id, else the name of the Gherkin rule."""
    return judged.scenario.requirement or judged.scenario.rule


def _language(lines: Sequence[Line]) -> str:
    match = next(filter(None, (_LANGUAGE.match(line.text) for line in lines[:5])), None)
    return "-".join(filter(None, match.groups())) if match else ""


def _rows_by_line(judged: JudgedScenario | None) -> dict[int, Row]:
    """The rows whose status is shown: those of an Outline that has a test."""
    return {row.line: row for row in judged.scenario.rows} if judged and judged.tests else {}


def _steps_by_line(judged: JudgedScenario | None) -> dict[int, JudgedStep]:
    pairs = zip(judged.scenario.steps, judged.steps, strict=False) if judged else ()
    return {step.line: verdict for step, verdict in pairs}


# A file in Markdown, its prose included. Nothing is let through that would run, or be fetched: raw
# HTML is shown as it is written.


_UNDER_A_HEAD = re.compile(r"[\s|:-]*-[\s|:-]*")  # of a table
_DEPTH = 2  # of a file's title
_FIXED = {
    # A heading in a quote or in a list is none of the page's own.
    "heading_open": '<p class="heading">',
    "heading_close": "</p>",
    # It scrolls sideways in place of the page.
    "table_open": '<div class="wide"><table>',
    "table_close": "</table></div>",
    # Without alignment: that would be a style, of which the page allows its own sheet alone.
    "th_open": "<th>",
    "td_open": "<td>",
}


def markdown(
    chapter: Chapter, anchors: Mapping[str, str], gherkin: Gherkin
) -> tuple[Markup, Markup]:
    """Return what a Markdown file calls itself, empty where it does not, and the rest as markup.

    Args:
        chapter: the file.
        anchors: the ids of all files on the page by their paths, for links from one to another.
        gherkin: makes markup of numbered lines, a chapter and the depth of the first heading.
    """
    text = without_front_matter("\n".join(chapter.lines))
    blocks = SyntaxTreeNode(_parser().parse(text)).children
    slugs, ids = Anchors(), dict[str, str]()
    for block in (block for block in blocks if block.type == "heading"):
        # A link inside of the file knows a heading as the forges do: "#4-business-rules".
        words = re.sub(r"[^\w\- ]", "", block.children[0].content.lower())
        slug = slugs.take(words.replace(" ", "-"))
        ids[slug] = block.meta["id"] = chapter.anchors.take(f"{chapter.anchor}--{slug}")
    env = {"chapter": chapter, "anchors": anchors, "gherkin": gherkin, "ids": ids, "depth": _DEPTH}
    title = Markup("")
    if blocks and blocks[0].tag == "h1":
        title = _rendered(blocks.pop(0).children[0], env)
    return title, _sections(blocks, chapter, env)


def _sections(blocks: list[SyntaxTreeNode], chapter: Chapter, env: dict[str, Any]) -> Markup:
    """Put the blocks under their headings; a scenario that is a heading takes its own along."""
    markup: list[str] = []
    levels: list[int] = []  # of the headings, in the file, that we are below
    prose, after = False, 0  # whether prose is open; the line that a scenario's block ends before
    for block in blocks:
        start = block.map[0] if block.map else 0
        if start < after:
            continue
        is_heading = block.type == "heading"
        is_scenario = is_heading and start + 1 in chapter.ids
        is_prose = not (is_heading or any(map(is_gherkin, block.to_tokens())))
        if prose != is_prose:
            markup.append('<div class="prose" dir="auto">' if is_prose else "</div>")
            prose = is_prose
        if is_scenario:
            after = _end_of_scenario(blocks, chapter, start)
            lines = _plain_gherkin(chapter, start, after)
            markup.append(env["gherkin"](lines, chapter, env["depth"] + 1))
        elif is_heading:
            level = int(block.tag[1])
            while levels and levels[-1] >= level:
                levels.pop()
                markup.append("</section>")
            name = f"h{min(_DEPTH + len(levels) + 1, 6)}"
            attributes = Markup('id="{}" dir="auto"').format(block.meta["id"])
            text = _rendered(block.children[0], env)
            markup.append(f'<section class="part"><{name} {attributes}>{text}</{name}>')
            levels.append(level)
            env["depth"] = _DEPTH + len(levels)
        else:
            markup.append(_rendered(block, env))
    markup += ["</div>"] * prose + ["</section>"] * len(levels)
    return Markup("".join(markup))  # noqa: S704 - as in _rendered


def _end_of_scenario(blocks: list[SyntaxTreeNode], chapter: Chapter, start: int) -> int:
    scenario = chapter.judged[chapter.ids[start + 1]].scenario
    lines = [*(step.line for step in scenario.steps), *(row.line for row in scenario.rows)]
    last = max([scenario.line, *lines])
    headings = (block.map for block in blocks if block.type == "heading")
    return next((at[0] for at in headings if at and at[0] >= last), len(chapter.lines))


def _plain_gherkin(chapter: Chapter, start: int, end: int) -> list[tuple[int, str]]:
    return [
        (number, re.sub(r"^\s*(?:#+|[*+-])\s+", "", line))
        for number, line in enumerate(chapter.lines[start:end], start + 1)
        if not _UNDER_A_HEAD.fullmatch(line)
    ]


def _rendered(node: SyntaxTreeNode, env: dict[str, Any]) -> Markup:
    parser = _parser()
    return Markup(parser.renderer.render(node.to_tokens(), parser.options, env))  # noqa: S704 - the rules below escape


@cache
def _parser() -> MarkdownIt:
    # With raw HTML known as such: a fence in a comment is none, as for whoever read the scenarios.
    options = {"html": True, "xhtmlOut": False}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer)
    for name, markup in _FIXED.items():
        parser.add_render_rule(name, lambda *_, it=markup: it)
    return parser.enable(["table", "strikethrough"])


class _Renderer(RendererHTML):
    """How each token is written; by their names, those that the library would write otherwise."""

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        token, chapter = tokens[idx], env["chapter"]
        if not is_gherkin(token):
            return self.code_block(tokens, idx, options, env)
        first = (token.map or [0])[0] + 2
        lines = list(enumerate(token.content.split("\n"), first))
        return str(env["gherkin"](lines, chapter, env["depth"] + 1))

    def code_block(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        return f'<pre class="wide">\n{escape(tokens[idx].content)}</pre>'

    def html_block(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        # Comments are for those who write.
        text = re.sub(r"<!--.*?(?:-->|\Z)", "", tokens[idx].content, flags=re.DOTALL).strip()
        return f'<pre class="wide">\n{escape(text)}</pre>' if text else ""

    def html_inline(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        text = tokens[idx].content
        if re.fullmatch(r"<br\s*/?>", text, re.IGNORECASE):
            return "<br>"
        return "" if text.startswith("<!--") else str(escape(text))

    def image(self, tokens: Sequence[Token], idx: int, *_: Any) -> str:
        # Nothing is fetched: its words stand for it.
        return f'<span class="image">[{escape(tokens[idx].content or "image")}]</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, _options: Any, env: Any) -> str:
        href = str(tokens[idx].attrGet("href") or "")
        if re.match(r"(?:https?|mailto):", href, re.IGNORECASE):
            return f'<a href="{escape(href)}" rel="noreferrer">'
        path, _, name = unquote(href).partition("#")
        here = posixpath.dirname(env["chapter"].path)
        anchors: dict[str, str] = env["anchors"] if path else env["ids"]
        target = anchors.get(posixpath.normpath(posixpath.join(here, path)) if path else name)
        # What leads nowhere from this page says where it would.
        return f'<a href="#{escape(target)}">' if target else f'<a title="{escape(href)}">'
