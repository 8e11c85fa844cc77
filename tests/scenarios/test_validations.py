"""A model that is built from an answer is no assertion, and the run says what is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenarios.proving import told
from tests.scenarios.seen import seeing

if TYPE_CHECKING:
    from pathlib import Path

VALIDATED = """
from app import Dancer
from pydantic import BaseModel


class Out(BaseModel):
    names: list[str]


@proves
async def test_validated(client, db_session):
    db_session.add(Dancer(name="Storm"))
    Out(names=(await client.get("/dancers")).json())
"""


def test_a_validation_alone_is_hollow_and_the_next_step_is_an_assertion(tmp_path: Path) -> None:
    """It accepts each value of the right type: an assertion of a value is what proves."""
    example = seeing(tmp_path, VALIDATED)
    found = told(example)
    assert found.statuses == {"validated": "HOLLOW"}
    found.run.says("next: assert a value of the answer", "does not count as an assertion")
    asserted = example.change("test_it.py", "    Out(names=(await", "    out = Out(names=(await")
    asserted = asserted.change(
        "test_it.py", ".json())\n", '.json())\n    assert "Storm" in out.names\n'
    )
    assert told(asserted).statuses == {"validated": "PROVEN"}
