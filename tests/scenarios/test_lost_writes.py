"""A proof during which the app lost a write says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenarios.proving import told
from tests.scenarios.seen import seeing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

TESTS = """
from app import Dancer, app, get_db
from fastapi import Depends


@app.post("/forgotten", status_code=201)
async def forget(db=Depends(get_db)):
    db.add(Dancer(name="Ann"))
    await db.flush()
    return "Ann"


@proves
async def test_forgotten(client, db_session):
    db_session.add(Dancer(name="Storm"))
    answer = await client.post("/forgotten")
    assert answer.json() == "Ann"


@proves
async def test_kept(client, db_session):
    db_session.add(Dancer(name="Storm"))
    answer = await client.post("/dancers/Ann")
    assert answer.json() == "Ann"
"""


def project(folder: Path) -> Example:
    """One scenario whose request commits, and one whose request forgets it."""
    return seeing(folder, TESTS)


def test_a_lost_write_is_a_warning_of_its_scenario(tmp_path: Path) -> None:
    """The summary names it once in a run; each scenario that it concerns has it too."""
    found = told(project(tmp_path), "-v")
    warnings = {name: " ".join(one["warnings"]) for name, one in found.scenarios.items()}
    lost = "POST /forgotten 201 wrote dancers (1 row) and never committed it: lost (test_it.py:"
    assert lost in warnings["forgotten"]
    assert "A603" not in warnings["kept"]
    assert found.statuses == {"forgotten": "PROVEN", "kept": "PROVEN"}
    found.run.says(f"warning: {lost}", "(A603)")
    failing = told(project(tmp_path), "-o", "arena_lost_writes=fail")
    assert failing.statuses == {"forgotten": "FAILED", "kept": "PROVEN"}
