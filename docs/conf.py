"""How is the site made of these pages? By Sphinx and MyST: `make docs`.

The pages are plain Markdown, for a code host as well. What a site needs beyond that is added as
each page is read: the navigation, the names of files above their blocks, addresses for what is
not part of the site.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]

# Below which page, under which heading, stand which others? Each page once; `*` are all in order.
NAVIGATION = {
    "index": {
        "": ["tutorial"],
        "How-to": [
            "how-to/existing-suite",
            "how-to/settings-and-apps",
            "how-to/logins",
            "how-to/factories",
            "how-to/beside",
            "how-to/redis",
            "how-to/wide-fixtures",
            "how-to/alembic",
            "how-to/postgresql",
            "how-to/mysql",
            "how-to/several-databases",
            "how-to/late-work",
            "how-to/live-server",
            "how-to/races",
            "how-to/replay",
            "how-to/changes",
            "how-to/scenarios",
            "how-to/xdist",
        ],
        "Reference": [
            "reference/options",
            "reference/fixtures",
            "reference/command-line",
            "reference/support",
            "reference/errors",
            "glossary",
        ],
        "Explanation": [
            "explanation/how-it-works",
            "explanation/limits",
            "explanation/speed",
            "explanation/zoo",
            "explanation/architecture",
        ],
        "Problems": ["problems/README"],
    },
    "problems/README": {"": ["problems/*"]},
}

project = "pytest-arena"
version = release = PROJECT["version"]
author = PROJECT["authors"][0]["name"]
copyright = author  # noqa: A001 - Sphinx's name for it
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["_static"]
templates_path: list[str] = []
myst_heading_anchors = 6  # by the names that code hosts give to headings
nitpicky = True
html_baseurl = PROJECT.get("urls", {}).get("Documentation", "")  # the one that search engines keep
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = html_show_sphinx = False
html_search_scorer = str(DOCS / "scorer.js")
html_theme_options = {
    "source_repository": f"{SOURCE}/",
    "source_branch": "main",
    "source_directory": "docs/",
}
linkcheck_ignore = [re.escape(SOURCE)]
linkcheck_timeout = 20

_TITLED = re.compile(r'^( *)(`{3,})(\w+) title="?([^"\s]+)"?.*$', re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]+)?\)")
_EXAMPLE = re.compile(r"^```python title=.*?(?=^## )", re.MULTILINE | re.DOTALL)
_README = "The [README](../README.md) shows a complete test."


def setup(app: Any) -> None:
    """Change each page as it is read, and write llms.txt beside the pages."""
    app.connect("source-read", as_a_page_of_the_site)
    app.connect("build-finished", write_llms_txt)


def write_llms_txt(app: Any, error: Exception | None) -> None:
    """Write the list of pages for language models: https://llmstxt.org."""
    if error is None:
        (Path(app.outdir) / "llms.txt").write_text(llms_txt(), encoding="utf-8")


def llms_txt() -> str:
    """Return the title, the address and the first sentence of each page."""
    lines = [f"# {project}", "", f"> {PROJECT['description']}"]
    for parent, parts in NAVIGATION.items():
        for caption, entries in parts.items():
            found = [page for entry in entries for page in sorted(DOCS.glob(f"{entry}.md"))]
            lines += ["", f"## {caption or title_and_first_sentence(DOCS / f'{parent}.md')[0]}", ""]
            lines += [entry_of_llms_txt(page) for page in found]
    return "\n".join(lines) + "\n"


def entry_of_llms_txt(page: Path) -> str:
    """Return a line of llms.txt."""
    title, sentence = title_and_first_sentence(page)
    address = page.relative_to(DOCS).with_suffix(".html").as_posix()
    return f"- [{title}]({html_baseurl}{address}): {sentence}"


def title_and_first_sentence(page: Path) -> tuple[str, str]:
    """Return both as plain text, without links and line ends."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", page.read_text(encoding="utf-8"))
    heading, *blocks = text.split("\n\n")
    prose = [block for block in blocks if not block.startswith(("```", "<", "|", "-", "#"))]
    sentence = re.split(r"(?<=[.:])\s", prose[0])[0]
    return heading.lstrip("# "), " ".join(sentence.split()).rstrip(":")


def as_a_page_of_the_site(_: object, page: str, source: list[str]) -> None:
    """Add to a page what only a site has."""
    text = source[0].replace(_README, smallest_test()) if page == root_doc else source[0]
    text = _TITLED.sub(r"\1\2{code-block} \3\n\1:caption: \4\n", text)
    text = _LINK.sub(lambda link: address(link, (DOCS / page).parent), text)
    source[0] = text + "".join(
        toctree(caption, pages, page) for caption, pages in NAVIGATION.get(page, {}).items()
    )


def smallest_test() -> str:
    """The README's first example: it stands on the start page as well."""
    found = _EXAMPLE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found, "the README begins with an example"
    example = found[0].replace("](docs/", "](")  # from the folder of the start page
    return f"\n\n{example}"


def address(link: re.Match[str], folder: Path) -> str:
    """A link as it is; one to a file that is no page leads to the code host."""
    target = (folder / link[1]).resolve()
    if target.is_relative_to(DOCS):
        return link[0]
    return f"]({SOURCE}/blob/main/{target.relative_to(ROOT).as_posix()}{link[2] or ''})"


def toctree(caption: str, pages: list[str], page: str) -> str:
    """A part of the navigation, by the names of pages."""
    up = "/".join([".."] * page.count("/")) or "."
    entries = "\n".join(f"{up}/{each}" for each in pages)
    heading = f":caption: {caption}\n" if caption else ""
    return f"\n\n```{{toctree}}\n:hidden:\n:glob:\n{heading}\n{entries}\n```\n"
