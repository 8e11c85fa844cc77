"""Code that connects after the session: pytest-arena refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example
from tests.plugin.test_early_children import DELETES, USES_THE_APP

if TYPE_CHECKING:
    from pathlib import Path

TWICE_AT_THE_END = """
import atexit

def pytest_unconfigure():
    import app
    for _ in range(2):  # by a connection of the pool, and by a new one
        try:
            app.add(app.engine, "Ghost")
        except Exception as error:
            print(error)
        app.engine.dispose()
"""


def test_a_refusal_after_the_session_is_told_once(tmp_path: Path) -> None:
    """A connection of the pool and a new one have the same words."""
    files = {"conftest": TWICE_AT_THE_END, "deletes": DELETES, "test_it": USES_THE_APP}
    project = small_example(tmp_path, **files)
    run = project.run("test_it.py").expect(passed=1)
    run.says(f"arena: refused: a connection to {project.folder}/dev.db after the test session")
    assert run.output.count("arena: refused: ") == 1, run.output
