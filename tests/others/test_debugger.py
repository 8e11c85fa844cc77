"""A debugger holds the test: its database stands, and can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
async def test_fails(client):
    await client.post("/dancers/Dune")
    assert 0

def test_breaks(test_client):
    test_client.post("/dancers/Break")
    breakpoint()

async def test_clean(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""

# What is typed when the debugger begins: another process looks at each database of the run.
TYPED = """
import glob, os, subprocess, sys
look = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"
file = glob.glob(f"/*/*/pytest-arena-*/run-{os.getpid()}-*/live/dev.db")
file = file or glob.glob(f"/*/pytest-arena-*/run-{os.getpid()}-*/live/dev.db")
print(subprocess.check_output([sys.executable, "-c", look, file[0], "select name from dancers"]))
continue
"""


def test_a_debugger(example: Example) -> None:
    """By --pdb and by breakpoint(): all that was committed is there."""
    run = example.with_files(test_it=TESTS).with_paths({".pdbrc": TYPED}).run("--pdb")
    run.expect(status=1, failed=1, passed=2)
    run.says("('Sand',), ('Dune',)]", "('Sand',), ('Break',)]")
