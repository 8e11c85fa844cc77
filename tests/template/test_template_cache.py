"""The templates in the user's cache, without pytest and without the gate."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._process import run_id
from pytest_arena._sqlite import _product
from tests.template.project import CREATE, MODELS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.template.project import Project

DYING = CREATE.replace(
    "    connection.execute",
    """    import os, signal
    if not Path("survive").exists():
        connection.execute(text("create table half (id int)"))
        connection.commit()
        os.kill(os.getpid(), signal.SIGKILL)
    connection.execute""",
)


@pytest.fixture
def cached(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose only template is shared by the processes of a run."""
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", str(project.root))
    run_id.cache_clear()
    project.write(models=CREATE)
    project.schema = "models:create"
    project.seed = ""
    yield project
    run_id.cache_clear()


def _columns(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return len(connection.execute("pragma table_info(dancers)").fetchall())


def _time_after(template: Path) -> float:
    """Return a later time. A tick of the files' clock takes some milliseconds."""
    lock = template.with_suffix(".lock")
    later = built = lock.stat().st_mtime
    while later == built:
        lock.touch()
        later = lock.stat().st_mtime
    return later


def test_rebuild_is_for_templates_that_are_older_than_the_run(cached: Project) -> None:
    began = _time_after(cached.ensure())
    cached.ensure()
    for _ in range(2):
        cached.ensure(newer_than=began)
    assert cached.builds() == 2


@pytest.mark.parametrize("before", [1, 2])
def test_a_rebuild_that_is_interrupted_while_its_files_are_renamed(
    cached: Project, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """The next process builds again. It does not take the old content for the new one."""
    began = _time_after(cached.ensure())
    rename = Path.replace
    number = count(1)

    def interrupt(source: Path, target: Path) -> Path:
        if next(number) == before:
            raise KeyboardInterrupt
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cached.ensure(newer_than=began)
    cached.ensure(newer_than=began)
    assert cached.builds() == 3


def _age(file: Path) -> None:
    long_ago = time.time() - 2 * _product._UNUSED_SECONDS[False]
    os.utime(file, (long_ago, long_ago))


def test_unused_templates_are_collected_at_the_next_build(cached: Project) -> None:
    """Finding a template counts as a use."""
    old = cached.ensure()
    _age(old.with_suffix(".json"))
    assert cached.ensure() == old
    cached.schema = "models:metadata"
    cached.write(models=MODELS.replace("String)", "String(40))"))
    cached.ensure()
    assert old.exists()
    _age(old.with_suffix(".json"))
    cached.write(models=MODELS)
    new = cached.ensure()
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("schema", ["models:metadata", "all.sql"])
def test_a_schema_is_built_again_if_its_ddl_or_script_changes(
    project: Project, schema: str
) -> None:
    """A version that was built before is found again."""
    project.schema, project.seed = schema, ""

    def template(column: str) -> Path:
        script = f"create table dancers (id integer primary key, {column} text)"
        (project.root / "all.sql").write_text(script)
        project.write(models=MODELS.replace('"name"', f'"{column}"'))
        return Path(project.ensure())

    one = template("city")
    two = template("town")
    for column, file in {"city": one, "town": two}.items():
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(f"select {column} from dancers")
    assert template("city") == one != two


def _end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    return output.strip()


def test_a_killed_build_is_no_template(cached: Project) -> None:
    cached.write(models=DYING)
    killed = cached.in_another_process()
    _end(killed)
    assert killed.returncode == -signal.SIGKILL
    (cached.root / "survive").touch()
    assert _columns(cached.ensure()) == 2
    assert cached.builds() == 2
