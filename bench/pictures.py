"""Draw the pictures of README and docs: `python -m bench.pictures`.

Each picture shows what a command of a page has written, or a table that `make bench` has written.
`tests/test_docs.py` compares its words with the same source. A picture follows the reader's colour
scheme, and needs no script and no font of its own.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.pages import Terminal, run_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "pictures"
ANSI = re.compile(r"\x1b\[([\d;]*)m")
COLUMNS = 100  # of a terminal
# The sizes of a letter, in units of the picture.
WIDE = 7.8
HIGH = 19
# For each class of words its colour on a light and on a dark ground.
COLOURS = {
    "plain": ("#1f2328", "#e6edf3"),
    "faint": ("#59636e", "#9198a1"),
    "red": ("#cf222e", "#ff7b72"),
    "green": ("#1a7f37", "#56d364"),
    "yellow": ("#9a6700", "#e3b341"),
    "blue": ("#0969da", "#79c0ff"),
    "cyan": ("#1b7c83", "#76e3ea"),
}
GROUND = ("#f6f8fa", "#161b22")
LINES = ("#d1d9e0", "#3d444d")
# The colours of a terminal by their number, as SGR codes have them.
CODES = {1: "red", 2: "green", 3: "yellow", 4: "blue", 5: "blue", 6: "cyan", 0: "faint"}


class Recorder(Terminal):
    """A terminal with colours that keeps what each command wrote the first time."""

    def run(self, command: str) -> tuple[int, str]:
        """Run a command. Return its output without colours, with which the page compares it."""
        status, output = super().run(command)
        OUTPUTS.setdefault(command, output)
        return status, ANSI.sub("", output)

    def environment(self) -> dict[str, str]:
        """Return a reader's environment that asks for colours."""
        return {**super().environment(), "NO_COLOR": "", "FORCE_COLOR": "1"}


OUTPUTS: dict[str, str] = {}


@dataclass(frozen=True)
class Picture:
    """A picture of a page. ``draw`` gets the output of a command, or the text of a file."""

    page: str
    draw: Callable[[str], str]
    command: str = ""
    file: str = ""

    def of(self, outputs: dict[str, str], folder: Path) -> str:
        """Draw the picture, after the page was run in a folder."""
        if self.file:
            return self.draw((folder / self.file).read_text(encoding="utf-8"))
        return self.draw(outputs[self.command])


def words(picture: str) -> list[str]:
    """Return the words of a picture, without its style."""
    without_style = re.sub(r"<style>.*?</style>", "", picture, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", without_style).split()


# A terminal


def terminal(title: str, first: str, last: str, output: str) -> str:
    """Draw the lines of an output from one that begins with ``first`` to before ``last``."""
    shown: list[str] = []
    for line in output.splitlines():
        plain = ANSI.sub("", line)
        if shown and re.match(last, plain):
            break
        if shown or re.match(first, plain):
            shown += wrapped(line)
    rows = [row(line, number) for number, line in enumerate(shown, start=1)]
    return svg(title, COLUMNS * WIDE + 32, len(rows) * HIGH + 26, rows)


def wrapped(line: str) -> list[str]:
    """Break a line as a terminal does. A line with colours is short."""
    if ANSI.search(line) or len(line) <= COLUMNS:
        return [line]
    cut = line.rfind(" ", 0, COLUMNS)
    return [line[:cut], *wrapped(" " * 8 + line[cut + 1 :])]


def row(line: str, number: int) -> str:
    """Return a line as text, in which each part has a place and a colour."""
    parts = []
    column = 0
    colour = "plain"
    is_bold = False
    for index, part in enumerate(ANSI.split(line)):
        if index % 2:
            for code in map(int, filter(None, part.split(";"))):
                if code in {0, 39}:
                    colour = "plain"
                    is_bold &= code != 0
                elif code == 1:
                    is_bold = True
                elif code // 10 in {3, 9}:
                    colour = CODES.get(code % 10, "plain")
        elif part:
            weight = ' font-weight="600"' if is_bold else ""
            place = f'x="{16 + column * WIDE:.1f}"'
            parts.append(f'<tspan {place} class="{colour}"{weight}>{escape(part)}</tspan>')
            column += len(part)
    return f'<text y="{number * HIGH + 8}">{"".join(parts)}</text>'


# Two requests at once


def columns(title: str, output: str) -> str:
    """Draw the order of a race: a column for each request, and time downwards."""
    steps = re.findall(
        r"^([12])  (\S+ \S+)  (.+?)\s+(\S+:\d+)$", ANSI.sub("", output), re.MULTILINE
    )
    [wrong] = re.findall(r"^E +(assert .*)", ANSI.sub("", output), re.MULTILINE)
    left = {"1": 24, "2": 424}
    parts = []
    bottom = 76 + len(steps) * 42
    for request, x in left.items():
        name = next(each for number, each, *_ in steps if number == request)
        head = f"request {request}: {name}"
        parts.append(f'<text x="{x}" y="34" class="plain" font-weight="600">{escape(head)}</text>')
        parts.append(f'<line x1="{x + 8}" y1="48" x2="{x + 8}" y2="{bottom - 22}" class="rule"/>')
    for number, (request, _, statement, place) in enumerate(steps):
        x = left[request]
        y = 76 + number * 42
        colour = "yellow" if statement.startswith(("UPDATE", "INSERT", "DELETE")) else "blue"
        short = textwrap.shorten(statement, 42, placeholder=" …")
        parts.append(f'<circle cx="{x + 8}" cy="{y - 4}" r="5" class="{colour}"/>')
        parts.append(f'<text x="{x + 24}" y="{y}" class="{colour}">{escape(short)}</text>')
        parts.append(f'<text x="{x + 24}" y="{y + 15}" class="faint small">{escape(place)}</text>')
    parts.append(f'<text x="24" y="{bottom}" class="red">{escape(wrong)}</text>')
    return svg(title, 824, bottom + 20, parts)


# The times of `make bench`


def bars(title: str, table: str, column: int, page: str) -> str:
    """Draw a column of a table as bars. The page has the other numbers."""
    [body] = re.findall(
        rf"^### {re.escape(table)}\n(.*?)(?=^#|^<!--)", page, re.MULTILINE | re.DOTALL
    )
    lines = re.findall(r"^\| (.+) \|$", body, re.MULTILINE)
    head, _, *cells = [line.split(" | ") for line in lines]
    times = {line[0]: float(line[column]) for line in cells}
    unit = 380 / max(times.values())
    heading = f"{table}, {head[column]}: milliseconds"
    parts = [f'<text x="16" y="30" class="plain" font-weight="600">{escape(heading)}</text>']
    for number, (name, time) in enumerate(times.items()):
        y = 62 + number * 30
        is_ours = name.startswith("**")
        colour = "green" if is_ours else "faint"
        weight = ' font-weight="600"' if is_ours else ""
        plain = escape(re.sub(r"[*`]", "", name))
        parts.append(f'<text x="16" y="{y}" class="plain"{weight}>{plain}</text>')
        parts.append(
            f'<rect x="460" y="{y - 13}" width="{time * unit:.0f}" height="17" rx="3" '
            f'class="{colour}"/>'
        )
        parts.append(
            f'<text x="{468 + time * unit:.0f}" y="{y}" class="{colour}"{weight}>{time:.1f}</text>'
        )
    return svg(title, 920, 52 + len(times) * 30, parts)


# A page in HTML


def website(title: str, height: int, page: str) -> str:
    """Show a page as a browser does."""
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [body] = re.findall(r"<body>(.*)</body>", page, re.DOTALL)
    body = re.sub(r" Page written [\d: -]+UTC", "", body.replace("<br>", "<br/>"))
    ground = f"body {{ background: {GROUND[0]} }} @media (prefers-color-scheme: dark) "
    ground += f"{{ body {{ background: {GROUND[1]} }} }}"
    document = (
        f'<html xmlns="http://www.w3.org/1999/xhtml"><head><style>{style}{ground}</style></head>'
        f"<body>{body}</body></html>"
    )
    frame = f'<foreignObject width="920" height="{height}">{document}</foreignObject>'
    return svg(title, 920, height, [frame])


def svg(title: str, width: float, height: float, parts: list[str]) -> str:
    """Return a picture with a title for who cannot see it."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{''.join(styles())}</style>\n"
        f'<rect width="100%" height="100%" rx="8" class="ground"/>\n{body}\n</svg>\n'
    )


def styles() -> Iterator[str]:
    """Return the style of a picture: the light colours, then the dark ones."""
    yield "text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; "
    yield "white-space: pre } .small { font-size: 11px } "
    for is_dark in (False, True):
        yield "@media (prefers-color-scheme: dark) { " if is_dark else ""
        for name, colours in COLOURS.items():
            yield f".{name} {{ fill: {colours[is_dark]} }} "
        yield f".ground {{ fill: {GROUND[is_dark]} }} .rule {{ stroke: {LINES[is_dark]} }} "
    yield "}"


PICTURES = {
    "report": Picture(
        "docs/how-to/changes.md",
        partial(terminal, "The report of a failed test", "E   Assertion", "=+ short test summary"),
        "pytest -q --tb=short tests/test_pay.py",
    ),
    "race": Picture(
        "docs/how-to/races.md",
        partial(columns, "The order of statements in which a seat is sold twice"),
        "pytest test_seats.py",
    ),
    "replay": Picture(
        "docs/how-to/replay.md",
        partial(terminal, "The findings of --arena-replay", "POST", r"  as a test|\d+ replays"),
        "pytest --arena-replay",
    ),
    "scenarios": Picture(
        "docs/how-to/scenarios.md",
        partial(website, "A specification with the result of its tests", 940),
        file="build/first.html",
    ),
}
BENCH = {
    "bench": Picture(
        "docs/explanation/speed.md",
        partial(
            bars,
            "The time of a test with each way of isolation",
            "A test with three requests on PostgreSQL",
            2,
        ),
    )
}


def main() -> None:
    """Run the pages, and draw the pictures anew."""
    for name, picture in PICTURES.items():
        OUTPUTS.clear()
        with TemporaryDirectory(prefix="picture-") as folder:
            project = Path(folder, "project")
            project.mkdir()
            page = (ROOT / picture.page).read_text(encoding="utf-8")
            run_page(picture.page, page, Recorder(project))
            drawn = picture.of(OUTPUTS, project)
        (FOLDER / f"{name}.svg").write_text(drawn, encoding="utf-8")
    draw_bench()


def draw_bench() -> None:
    """Draw the tables of the page of speed."""
    for name, picture in BENCH.items():
        page = (ROOT / picture.page).read_text(encoding="utf-8")
        (FOLDER / f"{name}.svg").write_text(picture.draw(page), encoding="utf-8")


if __name__ == "__main__":
    main()
