"""How does a specification in Markdown look on the page, its prose included?

Nothing is let through that would run, or be fetched: raw HTML is shown as it is written.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from pytest_arena.scenarios.outputs._chapters import Anchors
from pytest_arena.scenarios.specs import is_gherkin, without_front_matter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markdown_it.token import Token

    from pytest_arena.scenarios.outputs._chapters import Chapter

    Gherkin = Callable[..., Markup]

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
    blocks: list[list[Token]] = [[]]
    for token in _parser().parse(text):
        blocks[-1].append(token)
        if token.level == 0 and token.nesting <= 0:
            blocks.append([])
    blocks.pop()
    slugs, ids = Anchors(), dict[str, str]()
    for first, content, *_ in (block for block in blocks if block[0].type == "heading_open"):
        # A link inside of the file knows a heading as the forges do: "#4-business-rules".
        slug = slugs.take(re.sub(r"[^\w\- ]", "", content.content.lower()).replace(" ", "-"))
        ids[slug] = first.meta["id"] = chapter.anchors.take(f"{chapter.anchor}--{slug}")
    env = {"chapter": chapter, "anchors": anchors, "gherkin": gherkin, "ids": ids, "depth": _DEPTH}
    title = Markup("")
    if blocks and blocks[0][0].tag == "h1":
        title = _rendered(blocks.pop(0)[1:2], env)
    return title, _sections(blocks, chapter, env)


def _sections(blocks: list[list[Token]], chapter: Chapter, env: dict[str, Any]) -> Markup:
    """Put the blocks under their headings; a scenario that is a heading takes its own along."""
    markup: list[str] = []
    levels: list[int] = []  # of the headings, in the file, that we are below
    prose, after = False, 0  # whether prose is open; the line that a scenario's block ends before
    for block in blocks:
        first, start = block[0], (block[0].map or [0])[0]
        if start < after:
            continue
        is_heading = first.type == "heading_open"
        is_scenario = is_heading and start + 1 in chapter.ids
        is_ours = is_scenario or any(_is_ours(token, chapter) for token in block)
        if prose != (is_prose := not (is_heading or is_ours)):
            markup.append('<div class="prose" dir="auto">' if is_prose else "</div>")
            prose = is_prose
        if is_scenario:
            after = _end_of_scenario(blocks, chapter, start)
            lines = _plain_gherkin(chapter, start, after)
            markup.append(env["gherkin"](lines, chapter, env["depth"] + 1))
        elif is_heading:
            level = int(first.tag[1])
            while levels and levels[-1] >= level:
                levels.pop()
                markup.append("</section>")
            name = f"h{min(_DEPTH + len(levels) + 1, 6)}"
            attributes = Markup('id="{}" dir="auto"').format(first.meta["id"])
            text = _rendered(block[1:2], env)
            markup.append(f'<section class="part"><{name} {attributes}>{text}</{name}>')
            levels.append(level)
            env["depth"] = _DEPTH + len(levels)
        else:
            markup.append(_rendered(block, env))
    markup += ["</div>"] * prose + ["</section>"] * len(levels)
    return Markup("".join(markup))  # noqa: S704 - as in _rendered


def _end_of_scenario(blocks: list[list[Token]], chapter: Chapter, start: int) -> int:
    scenario = chapter.judged[chapter.ids[start + 1]].scenario
    lines = [*(step.line for step in scenario.steps), *(row.line for row in scenario.rows)]
    last = max([scenario.line, *lines])
    headings = (block[0].map for block in blocks if block[0].type == "heading_open")
    return next((at[0] for at in headings if at and at[0] >= last), len(chapter.lines))


def _plain_gherkin(chapter: Chapter, start: int, end: int) -> list[tuple[int, str]]:
    return [
        (number, re.sub(r"^\s*(?:#+|[*+-])\s+", "", line))
        for number, line in enumerate(chapter.lines[start:end], start + 1)
        if not _UNDER_A_HEAD.fullmatch(line)
    ]


def _is_ours(token: Token, chapter: Chapter) -> bool:
    if token.type != "fence" or token.map is None:
        return False
    lines = range(token.map[0] + 1, token.map[1] + 1)
    return any(line in chapter.ids for line in lines) or is_gherkin(token)


def _rendered(tokens: Sequence[Token], env: dict[str, Any]) -> Markup:
    parser = _parser()
    return Markup(parser.renderer.render(tokens, parser.options, env))  # noqa: S704 - the rules below escape


@cache
def _parser() -> MarkdownIt:
    # With raw HTML known as such: a fence in a comment is none, as for whoever read the scenarios.
    parser = MarkdownIt("commonmark", {"html": True, "xhtmlOut": False})
    parser.enable(["table", "strikethrough"])
    rules: dict[str, Callable[..., str]] = {
        name: _always(markup) for name, markup in _FIXED.items()
    }
    rules |= {
        "fence": _fence,
        "code_block": _code,
        "html_block": _raw_block,
        "html_inline": _raw,
        "image": _image,
        "link_open": _link,
    }
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    return parser


def _always(markup: str) -> Callable[..., str]:
    return lambda *_: markup


def _fence(
    _self: object, tokens: Sequence[Token], place: int, _options: object, env: dict[str, Any]
) -> str:
    token, chapter = tokens[place], env["chapter"]
    if not _is_ours(token, chapter):
        return _code(_self, tokens, place)
    first = (token.map or [0])[0] + 2
    lines = list(enumerate(token.content.split("\n"), first))
    return str(env["gherkin"](lines, chapter, env["depth"] + 1))


def _code(_self: object, tokens: Sequence[Token], place: int, *_: object) -> str:
    return f'<pre class="wide">\n{escape(tokens[place].content)}</pre>'


def _raw_block(_self: object, tokens: Sequence[Token], place: int, *_: object) -> str:
    # Comments are for those who write.
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", tokens[place].content, flags=re.DOTALL).strip()
    return f'<pre class="wide">\n{escape(text)}</pre>' if text else ""


def _raw(_self: object, tokens: Sequence[Token], place: int, *_: object) -> str:
    text = tokens[place].content
    if re.fullmatch(r"<br\s*/?>", text, re.IGNORECASE):
        return "<br>"
    return "" if text.startswith("<!--") else str(escape(text))


def _image(_self: object, tokens: Sequence[Token], place: int, *_: object) -> str:
    # Nothing is fetched: its words stand for it.
    return f'<span class="image">[{escape(tokens[place].content or "image")}]</span>'


def _link(
    _self: object, tokens: Sequence[Token], place: int, _options: object, env: dict[str, Any]
) -> str:
    href = str(tokens[place].attrGet("href") or "")
    if re.match(r"(?:https?|mailto):", href, re.IGNORECASE):
        return f'<a href="{escape(href)}" rel="noreferrer">'
    path, _, name = unquote(href).partition("#")
    here = posixpath.dirname(env["chapter"].path)
    anchors: dict[str, str] = env["anchors"] if path else env["ids"]
    target = anchors.get(posixpath.normpath(posixpath.join(here, path)) if path else name)
    # What leads nowhere from this page says where it would.
    return f'<a href="#{escape(target)}">' if target else f'<a title="{escape(href)}">'
