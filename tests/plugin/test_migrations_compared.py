"""`MigrationDriftWarning`: what the migrations build is compared with the models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_templates_alembic import SYNC_ENV, with_migrations

if TYPE_CHECKING:
    from tests.example import Example

# The model says NOT NULL.
NULLABLE = 'sa.Column("name", sa.String, unique=True)'
LIKE_THE_MODEL = 'sa.Column("name", sa.String, nullable=False, unique=True)'
TITLE = """
    title: Mapped[str | None]


engine ="""
DIFFERENCE = "alembic check has failed"
FIRST = "migrations/versions/first.py"

# A model that no migration makes is green in each test that does not use it.
TESTS = """
def test_nothing_of_the_new_column(db_session):
    from sqlalchemy import text
    assert db_session.scalar(text("select count(*) from dancers")) == 1
"""


@pytest.fixture
def project(example: Example) -> Example:
    example = with_migrations(example, SYNC_ENV).with_files(test_names=TESTS)
    example = example.change(FIRST, NULLABLE, LIKE_THE_MODEL)
    seed = "def seed(session):\n    from sqlalchemy import text\n"
    seed += "    session.execute(text(\"insert into dancers (name) values ('Sand')\"))\n"
    below_tests = replace(example, folder=example.folder / "tests" / "project")
    return below_tests.with_files(seed=seed).with_paths({"pyproject.toml": ""})


def with_a_new_column(project: Example) -> Example:
    return project.change("app.py", "\n\n\nengine =", TITLE)


def test_a_column_without_a_migration_is_named_by_every_run(project: Example) -> None:
    """The template of an older model is not used."""
    project = project.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project = project.with_files(test_names=TESTS.replace("== 1", "== 0"))
    project.run().expect(passed=1).never_says(DIFFERENCE)
    lacking = with_a_new_column(project)
    for template in ("template built", "template from the cache"):
        run = lacking.run().expect(passed=1)
        run.says(template, DIFFERENCE, "add_column", "dancers", "title").never_says("(None)")


def test_what_env_py_leaves_out_is_not_compared(project: Example) -> None:
    """By its include_object, as for `alembic check`. Its warnings are no errors of the test."""
    lacking = with_a_new_column(project)
    target = "target_metadata=app.Base.metadata"
    warns = "__import__('warnings').warn('of a reflection')"
    ours = f"include_object=lambda item, name, *_: {warns} or name != 'title'"
    run = lacking.change("migrations/env.py", target, f"{target}, {ours}").run("-Werror")
    run.expect(passed=1).never_says(DIFFERENCE)


def test_an_error_of_the_comparison_fails_no_build(project: Example) -> None:
    """A type that cannot be compared, say: the line says what env.py has raised, and where."""
    target = "target_metadata=app.Base.metadata"
    broken = project.change("migrations/env.py", target, f"{target}, compare_type=compare")
    env = "def compare(*_):\n    raise ValueError('no such type')\n"
    env += broken.files["migrations/env.py"]
    run = broken.with_paths({"migrations/env.py": env}).run().expect(passed=1)
    run.says(DIFFERENCE, "ValueError: no such type (migrations/env.py:2")


def test_without_models_nothing_is_compared(project: Example) -> None:
    """The app has SQL alone, so `env.py` has no metadata."""
    bare = SYNC_ENV.replace("import app", "").replace("app.Base.metadata", "None")
    engine = "import sqlalchemy\nengine = sqlalchemy.create_engine('sqlite:///dev.db')\n"
    project = project.change("pytest.ini", "arena_app = app:app\n", "")
    project = project.with_paths({"migrations/env.py": bare, "test_names.py": engine + TESTS})
    project.run().expect(passed=1).never_says(DIFFERENCE)
