"""Known traps of pytest and the process that no single plugin sets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

TWO = """
async def test_both(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
    print("INSIDE", flush=True)
    input()  # until the other run is inside of its test as well
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
"""


def test_two_runs_at_once(example: Example) -> None:
    """P2, P7: two checkouts, one cache; neither takes anything from the other."""
    folders = [example.folder.with_name(name) for name in ("one", "two")]
    runs = [
        replace(example, folder=folder).with_files(test_it=TWO).start("-q", "-s")
        for folder in folders
    ]
    for run in runs:
        assert run.stdout is not None
        assert any("INSIDE" in line for line in iter(run.stdout.readline, ""))
    outputs = [run.communicate("\n", timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
