"""The page of capabilities is written from verdicts, and says what the code has."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.capabilities import page, rows
from tests.conformance.setting import CAPABILITIES
from tests.conformance.verdict import Broken, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "capabilities.md"


def cells(line: str) -> list[str]:
    """Return those of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_is_broken_is_said_and_what_is_lacking_has_its_reason() -> None:
    """A row for each combination; the promises first, then what may be lacking."""
    found = [(row, Verdict(row.settings[0])) for row in rows()]
    first, _ = found[0]
    found[0] = first, Verdict(first.settings[0], broken=(Broken("P2", "a test", "a row"),))
    lines = page(found, "Last run on a day.").splitlines()
    [header] = [line for line in lines if line.startswith("| database")]
    table = [line for line in lines[lines.index(header) + 2 :] if line.startswith(("| S", "| Pos"))]
    names = cells(header)
    assert names == ["database", "isolation", "drivers", "promises", *CAPABILITIES]
    broken = dict(zip(names, cells(table[0]), strict=True))
    assert (broken["promises"], broken["ddl"]) == ("broken: P2", "yes")
    others = [dict(zip(names, cells(line), strict=True)) for line in table[-2:]]
    assert [row["isolation"] for row in others] == ["clone", "rollback"]
    assert [row["reading by changes"] for row in others] == ["no", "yes"]
    assert others[1]["several connections"] == "no"
    assert (
        "- PostgreSQL, clone, *reading by changes*: a clone is a copy of the whole database"
        in lines
    )
    assert any("Last run on a day." in line for line in lines)


def test_the_page_has_every_row_and_nothing_broken() -> None:
    """Else `make capabilities` is to be run again."""
    found = [cells(line) for line in PAGE.read_text(encoding="utf-8").splitlines()]
    table = [line for line in found if line[0].startswith(("SQLite", "PostgreSQL", "MariaDB"))]
    shown = [[*line[:2], driver] for line in table for driver in line[2].split(" / ")]
    assert shown == [[row.database, row.isolation, row.driver] for row in rows()]
    assert not [line for line in found if "broken" in line]
