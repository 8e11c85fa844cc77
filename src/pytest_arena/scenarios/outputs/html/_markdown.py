"""How does a specification in Markdown look on the page, its prose included?"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML

from pytest_arena.scenarios.outputs.html._chapter import Anchors
from pytest_arena.scenarios.outputs.html._gherkin import gherkin, heading
from pytest_arena.scenarios.outputs.html._markup import Html, element, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from markdown_it.token import Token

    from pytest_arena.scenarios.outputs.html._chapter import Chapter, Placed

__all__ = ["Rendered", "markdown"]

_OURS = re.compile(r"[\s{.]*(gherkin|feature|cucumber)\b", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_ELSEWHERE = re.compile(r"(?:https?|mailto):", re.IGNORECASE)
_UNDER_A_HEAD = re.compile(r"[\s|:-]*-[\s|:-]*")  # of a table
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A file as markup: what it calls itself, empty where it does not, and the rest."""

    title: Html
    body: Html


def markdown(chapter: Chapter, anchors: Mapping[str, str], *, depth: int) -> Rendered:
    """Return a Markdown file as markup, with its Gherkin told of.

    Args:
        chapter: the file.
        anchors: the ids of all files on the page by their paths, for links from one to another.
        depth: of its title: 2 is ``<h2>``.
    """
    text = _without_front_matter("\n".join(chapter.lines))
    blocks = list(_blocks(_PARSER.parse(text)))
    ids = _ids(blocks, chapter)
    writer = _Writer(chapter, depth, {"chapter": chapter, "anchors": anchors, "ids": ids})
    title = Html("")
    if blocks and blocks[0][0].tag == "h1":
        title = writer.inline(blocks.pop(0)[1])
    writer.write(blocks)
    return Rendered(title=title, body=joined(*writer.done()))


def _without_front_matter(text: str) -> str:
    # Its lines stay, empty, so that those after it keep their numbers.
    found = _FRONT_MATTER.match(text)
    return "\n" * found[0].count("\n") + text[found.end() :] if found else text


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _ids(blocks: list[list[Token]], chapter: Chapter) -> dict[str, str]:
    # A link inside of the file knows a heading as the forges do: "#4-business-rules".
    found = Anchors()
    ids = {}
    for first, *rest in blocks:
        if first.type == "heading_open":
            known_as = found.take(_slug(rest[0].content))
            ids[known_as] = first.meta["id"] = chapter.anchors.take(f"{chapter.anchor}--{known_as}")
    return ids


def _slug(text: str) -> str:
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def _is_ours(token: Token, chapter: Chapter) -> bool:
    if token.type != "fence" or token.map is None:
        return False
    has_scenario = any(
        line in chapter.by_line for line in range(token.map[0] + 1, token.map[1] + 1)
    )
    return has_scenario or _OURS.match(token.info) is not None


class _Writer:
    """Puts the blocks of one file under their headings."""

    def __init__(self, chapter: Chapter, depth: int, env: dict[str, Any]) -> None:
        self._chapter, self._depth, self._env = chapter, depth, env
        self._parts: list[int] = []  # the levels, in the file, of the headings that we are below
        self._prose: list[Html] = []
        self._out: list[Html] = []

    @property
    def _below(self) -> int:
        return self._depth + len(self._parts) + 1

    def write(self, blocks: list[list[Token]]) -> None:
        """Write all blocks; a scenario that is a heading takes those that belong to it along."""
        after = 0
        for block in blocks:
            first, start = block[0], (block[0].map or [0])[0]
            if start < after:
                continue
            placed = first.type == "heading_open" and self._chapter.by_line.get(start + 1)
            if placed:
                after = self._scenario(placed, blocks)
            elif first.type == "heading_open":
                self._heading(first, block[1])
            else:
                self._block(block)

    def _scenario(self, placed: Placed, blocks: list[list[Token]]) -> int:
        start, last = placed.judged.scenario.line - 1, placed.last_line
        headings = (one[0].map for one in blocks if one[0].type == "heading_open")
        end = next((at[0] for at in headings if at and at[0] >= last), len(self._chapter.lines))
        lines = [
            (number, re.sub(r"^\s*(?:#+|[*+-])\s+", "", line))
            for number, line in enumerate(self._chapter.lines[start:end], start + 1)
            if not _UNDER_A_HEAD.fullmatch(line)
        ]
        self._add(gherkin(lines, self._chapter, self._below))
        return end

    def _heading(self, token: Token, text: Token) -> None:
        self._flush()
        level = int(token.tag[1])
        while self._parts and self._parts[-1] >= level:
            self._close()
        self._out.append(Html('<section class="part">'))
        self._out.append(heading(self._below, self.inline(text), id=token.meta["id"], dir="auto"))
        self._parts.append(level)

    def _block(self, block: list[Token]) -> None:
        shown = self._rendered(block)
        if any(_is_ours(token, self._chapter) for token in block):
            self._add(shown)
        else:
            self._prose.append(shown)

    def inline(self, token: Token) -> Html:
        """Return what stands in one heading."""
        return self._rendered([token])

    def _rendered(self, tokens: list[Token]) -> Html:
        self._env["depth"] = self._below
        return Html(_PARSER.renderer.render(tokens, _PARSER.options, self._env))

    def _add(self, shown: Html) -> None:
        self._flush()
        self._out.append(shown)

    def _flush(self) -> None:
        if self._prose:
            self._out.append(element("div", *self._prose, class_="prose", dir="auto"))
        self._prose = []

    def _close(self) -> None:
        self._parts.pop()
        self._out.append(Html("</section>"))

    def done(self) -> list[Html]:
        """Return all that was written."""
        self._flush()
        while self._parts:
            self._close()
        return self._out


class _Renderer(RendererHTML):
    """Lets nothing through that would run, or be fetched: raw HTML is shown as it is written."""

    def __init__(self, parser: object = None) -> None:
        super().__init__(parser)
        fixed: dict[str, Any] = {name: partial(_always, text) for name, text in _FIXED.items()}
        asked: dict[str, Any] = {"fence": _fence, "code_block": _code, "image": _image}
        asked |= {"link_open": _link, "html_block": _raw_block, "html_inline": _raw}
        self.rules |= fixed | asked


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


def _always(markup: str, *_: object) -> str:
    return markup


def _fence(tokens: Sequence[Token], place: int, _: object, env: dict[str, Any]) -> Html:
    token, chapter = tokens[place], env["chapter"]
    if not _is_ours(token, chapter):
        return _code(tokens, place)
    first = (token.map or [0])[0] + 2
    return gherkin(enumerate(token.content.split("\n"), first), chapter, env["depth"])


def _code(tokens: Sequence[Token], place: int, *_: object) -> Html:
    return element("pre", "\n", tokens[place].content, class_="wide")


def _raw_block(tokens: Sequence[Token], place: int, *_: object) -> Html:
    # Comments are for those who write.
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", tokens[place].content, flags=re.DOTALL).strip()
    return element("pre", "\n", text, class_="wide") if text else Html("")


def _raw(tokens: Sequence[Token], place: int, *_: object) -> Html:
    text = tokens[place].content
    if _BREAK.fullmatch(text):
        return element("br")
    return Html("") if text.startswith("<!--") else joined(text)


def _image(tokens: Sequence[Token], place: int, *_: object) -> Html:
    # Nothing is fetched: its words stand for it.
    return element("span", f"[{tokens[place].content or 'image'}]", class_="image")


def _link(tokens: Sequence[Token], place: int, _: object, env: dict[str, Any]) -> str:
    href = str(tokens[place].attrGet("href") or "")
    if _ELSEWHERE.match(href):
        link = element("a", href=href, rel="noreferrer")
    elif target := _inside(href, env):
        link = element("a", href=f"#{target}")
    else:
        # It leads nowhere from this page, but says where it would.
        link = element("a", title=href)
    return link.removesuffix("</a>")


def _inside(href: str, env: dict[str, Any]) -> str | None:
    path, _, name = unquote(href).partition("#")
    here = posixpath.dirname(env["chapter"].path)
    known: dict[str, str] = env["anchors"] if path else env["ids"]
    return known.get(posixpath.normpath(posixpath.join(here, path)) if path else name)


# With raw HTML known as such: a fence in a comment is none, as for whoever read the scenarios.
_PARSER = MarkdownIt("commonmark", {"html": True, "xhtmlOut": False}, renderer_cls=_Renderer)
_PARSER.enable(["table", "strikethrough"])
