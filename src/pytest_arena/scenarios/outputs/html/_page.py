"""How does a whole page come about: one file that asks for nothing from anywhere?"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import unescape
from importlib.resources import files
from typing import TYPE_CHECKING

from pytest_arena.scenarios.outputs.html._chapter import chapters
from pytest_arena.scenarios.outputs.html._gherkin import gherkin
from pytest_arena.scenarios.outputs.html._lines import written
from pytest_arena.scenarios.outputs.html._markdown import Rendered, markdown
from pytest_arena.scenarios.outputs.html._markup import Html, element, joined
from pytest_arena.scenarios.outputs.html._summary import contents, controls, headline, summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena.scenarios.evidence import Document
    from pytest_arena.scenarios.outputs.html._chapter import Chapter

__all__ = ["page"]

_LARGE = 500  # scenarios


def page(document: Document, sources: Mapping[str, str]) -> str:
    """Return the specification as one HTML file, with what is proven of it.

    It is the same for the same arguments, and asks for nothing: no font, image or script from
    elsewhere. Without a script all is shown, only the filters are missing. 2,000 scenarios take
    about a second.

    Args:
        document: the scenarios with their verdicts.
        sources: the text of each file by its path, as in ``Scenario.spec``. The scenarios of a
            file that is missing, or has changed since, are shown as they were read.
    """
    found = chapters(document, sources)
    anchors = {chapter.path: chapter.anchor for chapter in found}
    shown = {chapter.path: _rendered(chapter, anchors) for chapter in found}
    sections = [_section(chapter, shown[chapter.path]) for chapter in found]
    titles = {one.path: _words(shown[one.path].title) or _called(one) for one in found}
    html = joined(
        Html("<!doctype html>\n"),
        element(
            "html",
            _head(headline(document)),
            element(
                "body",
                element("a", "Skip to the scenarios", href="#main", class_="skip"),
                summary(document, found),
                element("aside", controls(document, found), *contents(found, titles)),
                element("script", _file("page.js")),
                element("main", *sections, id="main", tabindex=-1, class_=_size(document)),
            ),
            lang="en",
        ),
        "\n",
    )
    # What cannot be written as UTF-8, and what HTML has no place for, would break the file.
    return html.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _size(document: Document) -> str | None:
    # Below that, all of it is laid out at once, and a link leads exactly where it should.
    return "large" if len(document.scenarios) > _LARGE else None


def _rendered(chapter: Chapter, anchors: Mapping[str, str]) -> Rendered:
    if not chapter.is_as_read:
        return Rendered(title=Html(""), body=_as_read(chapter, 3))
    path = chapter.path.lower()
    if path.endswith(".feature"):
        body = gherkin(enumerate(chapter.lines, 1), chapter, 3)
        shown = Rendered(title=Html(""), body=body)
    else:
        shown = markdown(chapter, anchors, depth=2)
    return Rendered(title=shown.title, body=joined(shown.body, _as_read(chapter, 3)))


def _as_read(chapter: Chapter, depth: int) -> Html:
    # Whatever the text does not show where it was expected is shown nevertheless.
    left = [one.judged.scenario for one in chapter.left()]
    return gherkin(written(left), chapter, depth) if left else Html("")


def _section(chapter: Chapter, shown: Rendered) -> Html:
    path = element("code", chapter.path)
    title = [element("h2", shown.title, dir="auto"), element("p", path, class_="path")]
    return element(
        "section",
        *(title if shown.title else [element("h2", path)]),
        *_remark(chapter),
        shown.body,
        id=chapter.anchor,
        class_="part spec",
    )


def _remark(chapter: Chapter) -> list[Html]:
    if chapter.is_as_read:
        return []
    why = "is not to be had" if chapter.text is None else "has changed since the run"
    told = f"The text of this file {why}: its scenarios are shown as they were read."
    return [element("p", told, class_="notice")]


def _called(chapter: Chapter) -> str:
    return next(iter(chapter.features)) if len(chapter.features) == 1 else chapter.path


def _words(markup: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", markup))


def _head(title: str) -> Html:
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content="pytest-arena"),
        element("title", title),
        element("style", style),
    )


@cache
def _file(name: str) -> Html:
    return Html((files("pytest_arena.scenarios.outputs.html") / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
