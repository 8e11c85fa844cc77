"""The pictures in docs/pictures; ``make pictures`` draws them from runs of the docs' examples.

Both are SVG, which code hosts show in a page. They load nothing, and are the same for the same
output: durations and the folder of the run are replaced.
"""

from __future__ import annotations

import re
import tempfile
from html import escape
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.pages import Terminal, read_blocks, read_commands, write_file

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = DOCS / "pictures"
COLUMNS = 100

TERMINAL = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""

# In an image the page runs no script and has no height of its own.
PAGE = """\
<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}"\
 xmlns="http://www.w3.org/2000/svg">
<foreignObject width="100%" height="100%">
<html xmlns="http://www.w3.org/1999/xhtml">
{page}
</html>
</foreignObject>
</svg>
"""
PAGE_WIDTH = 1000
PAGE_HEIGHT = 900
# The parser makes all names small.
IN_SVG = {"viewbox": "viewBox", "preserveaspectratio": "preserveAspectRatio"}
VOID_ELEMENTS = {"br", "hr", "img", "input", "link", "meta"}
LEFT_OUT = re.compile(r"<!doctype html>|</?html[^>]*>|<meta[^>]*>|<script.*?</script>", re.DOTALL)


def failed_test(folder: Path) -> str:
    """Return the report of a failed test, as a terminal shows it."""
    command, output = run_example("changes", folder, "--no-header --color=yes")
    output = output.replace(str(folder.resolve()), "/home/me/shop")
    output = re.sub(r"in \d+\.\d+s", "in 0.12s", output)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(f"$ {command}", highlight=False)
    console.print(Text.from_ansi(output.rstrip()))
    return console.export_svg(title="", code_format=TERMINAL, unique_id="report")


def evidence(folder: Path) -> str:
    """Return the page of a specification, with the evidence of its first scenario unfolded."""
    run_example("scenarios", folder, "--scenarios-out=html:scenarios.html")
    page = (folder / "scenarios.html").read_text(encoding="utf-8")
    page = page.replace('<details class="evidence">', '<details class="evidence" open>', 1)
    parser = WellFormed()
    parser.feed(LEFT_OUT.sub("", page))
    parser.close()
    return PAGE.format(width=PAGE_WIDTH, height=PAGE_HEIGHT, page="".join(parser.parts))


def run_example(page: str, folder: Path, options: str) -> tuple[str, str]:
    """Run pytest where a page first runs its tests, and return the command and its output.

    Args:
        page: its name in docs/how-to.
        folder: an empty one.
        options: pytest gets them too.
    """
    text = (DOCS / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    for block in read_blocks(page, text):
        if "title" in block.attributes:
            write_file(block, folder)
        if block.language != "console" or not list(folder.glob("tests/test_*.py")):
            continue
        command = read_commands(block)[0].text
        if command.startswith("pytest "):
            _, output = Terminal(folder).run(f"COLUMNS={COLUMNS} {command} {options}")
            return command, output
    raise LookupError(f"docs/how-to/{page}.md runs no pytest")


class WellFormed(HTMLParser):
    """Writes HTML as XML: each element is closed, each attribute has a value."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Write the start of an element, and the end of one that holds nothing."""
        values = dict(attrs)
        if tag == "svg":
            values["xmlns"] = "http://www.w3.org/2000/svg"
        written = [f' {IN_SVG.get(key, key)}="{escape(values[key] or key)}"' for key in values]
        end = "/>" if tag in VOID_ELEMENTS else ">"
        self.parts.append(f"<{tag}{''.join(written)}{end}")

    def handle_endtag(self, tag: str) -> None:
        """Write the end of an element."""
        self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        """Write text."""
        self.parts.append(escape(data, quote=False))


DRAWN = {"failed-test.svg": failed_test, "evidence.svg": evidence}


def drawn(name: str) -> str:
    """Return a picture as the code of today draws it."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "shop")
        folder.mkdir()
        return DRAWN[name](folder)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in DRAWN:
        (PICTURES / name).write_text(drawn(name), encoding="utf-8")
