"""`MigrationDriftWarning`: what the migrations build is compared with the models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import alembic
import pytest

from tests.plugin.test_postgresql_story import on_postgresql
from tests.plugin.test_templates_alembic import ASYNC_ENV, SYNC_ENV, with_migrations

if TYPE_CHECKING:
    from tests.example import Example

# The model says NOT NULL.
NULLABLE = 'sa.Column("name", sa.String, unique=True)'
LIKE_THE_MODEL = 'sa.Column("name", sa.String, nullable=False, unique=True)'
TITLE = """
    title: Mapped[str | None]


engine ="""
DIFFERENCE = "the migrations differ from the models"
FIRST = "migrations/versions/first.py"

# A model that no migration makes is green in each test that does not use it.
TESTS = """
def test_nothing_of_the_new_column(db_session):
    from sqlalchemy import text
    assert db_session.scalar(text("select count(*) from dancers")) == 1
"""


@pytest.fixture
def project(example: Example) -> Example:
    """Migrations that build what the model says."""
    example = with_migrations(example, SYNC_ENV).with_files(test_names=TESTS)
    example = example.change(FIRST, NULLABLE, LIKE_THE_MODEL)
    seed = "def seed(session):\n    from sqlalchemy import text\n"
    seed += "    session.execute(text(\"insert into dancers (name) values ('Sand')\"))\n"
    return example.with_files(seed=seed)


def with_a_new_column(project: Example) -> Example:
    """The model has a column that no migration makes."""
    return project.change("app.py", "\n\n\nengine =", TITLE)


def test_a_column_without_a_migration_is_named(project: Example) -> None:
    """It is named under `-q` too; tests that do not use the column pass."""
    run = with_a_new_column(project).run("-q").expect(passed=1)
    run.says(f"alembic.ini:1: MigrationDriftWarning: alembic.ini: {DIFFERENCE}")
    run.says("cause: column dancers.title: in the models only")


@pytest.mark.slow
def test_a_column_without_a_migration_is_named_by_every_run(project: Example) -> None:
    """The run that builds the template names it, and so does one that has it from the cache."""
    project = project.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project = project.with_files(test_names=TESTS.replace("== 1", "== 0"))
    run = project.run().expect(passed=1)
    run.never_says(DIFFERENCE, "not compared")
    lacking = with_a_new_column(project)
    for template in ("template built", "template from the cache"):
        run = lacking.run().expect(passed=1)
        run.says(template, DIFFERENCE, "column dancers.title: in the models only")
    added = 'sa.Column("title", sa.String), '
    project = lacking.change(FIRST, 'sa.Column("name"', f'{added}sa.Column("name"')
    project.run().expect(passed=1).never_says(DIFFERENCE)


@pytest.mark.slow
def test_what_env_py_leaves_out_is_not_compared(project: Example) -> None:
    """By its include_object, as for `alembic check`."""
    lacking = with_a_new_column(project)
    target = "target_metadata=app.Base.metadata"
    ours = "include_object=lambda item, name, *_: name != 'title'"
    run = lacking.change("migrations/env.py", target, f"{target}, {ours}").run()
    run.expect(passed=1).never_says(DIFFERENCE)


@pytest.mark.slow
def test_a_model_that_env_py_does_not_import_counts_where_the_app_has(project: Example) -> None:
    """A change of it is compared anew, though no migration depends on it."""
    base = "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): ...\n"
    apart = project.with_files(base=base)
    apart = apart.change(
        "app.py", "class Base(DeclarativeBase):\n    pass", "from base import Base"
    )
    apart = apart.change("migrations/env.py", "import app", "import base")
    apart = apart.change("migrations/env.py", "app.Base", "base.Base")
    apart.run().expect(passed=1).never_says(DIFFERENCE)
    with_a_new_column(apart).run().expect(passed=1).says(DIFFERENCE)


@pytest.mark.slow
def test_an_env_py_without_models_says_which_line_it_lacks(project: Example) -> None:
    """Nothing is compared, and so nothing is green by that."""
    bare = project.with_paths({"migrations/env.py": ASYNC_ENV})
    run = bare.run().expect(passed=1)
    run.says("not compared", "does not provide a MetaData object")
    # The line that the message says.
    models = "target_metadata=__import__('app').Base.metadata"
    named = bare.change(
        "migrations/env.py", "connection=connection)", f"connection=connection, {models})"
    )
    named.run("-Werror::pytest_arena.MigrationDriftWarning").expect(passed=1).never_says(
        "not compared"
    )


# Alembic refuses a new migration where several revisions are the last of their branches.
BRANCH = """
revision, down_revision = "NAME", "1"

def upgrade():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("ini", ["alembic.ini", "config/alembic.ini"])
@pytest.mark.parametrize("branches", [(), ("2", "3")], ids=["one head", "two heads"])
def test_the_next_step_can_be_pasted(project: Example, branches: tuple[str, ...], ini: str) -> None:
    """It writes the migration that is missing, and the next run has no difference to name."""
    files = {f"migrations/versions/{name}.py": BRANCH.replace("NAME", name) for name in branches}
    template = Path(alembic.__file__).parent / "templates/generic/script.py.mako"
    files["migrations/script.py.mako"] = template.read_text()
    lacking = with_a_new_column(project).with_paths(files)
    if ini != "alembic.ini":
        moved = lacking.files["alembic.ini"].replace("%(here)s", "%(here)s/..")
        lacking = lacking.with_paths({ini: moved}).change(
            "pytest.ini", "arena_schema = alembic.ini", f"arena_schema = {ini}"
        )
    run = lacking.run().says(DIFFERENCE)
    step = run.output.partition("    next:  ")[2].partition("\n")[0]
    assert ("--head=heads" in step) == bool(branches)
    for command in step.partition("   on your")[0].split(" && "):
        done = lacking.python("-m", *command.split())
        assert done.status == 0, done.output
    lacking.run("-Werror::pytest_arena.MigrationDriftWarning").expect(passed=1).never_says(
        DIFFERENCE
    )


@pytest.mark.slow
def test_an_error_of_the_comparison_fails_no_build(project: Example) -> None:
    """A type that cannot be compared, say: the line says what env.py has raised, and where."""
    target = "target_metadata=app.Base.metadata"
    broken = project.change("migrations/env.py", target, f"{target}, compare_type=compare")
    env = "def compare(*_):\n    raise ValueError('no such type')\n"
    env += broken.files["migrations/env.py"]
    run = broken.with_paths({"migrations/env.py": env}).run().expect(passed=1)
    run.says("not compared", "ValueError: no such type (migrations/env.py:2")


POSTGRESQL_ENV = """
from alembic import context
from sqlalchemy import create_engine
import app

engine = create_engine("postgresql+psycopg://me:s3cret@db.example.org/shop")
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=app.Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""


@pytest.mark.slow
def test_each_kind_of_difference_on_postgresql(project: Example) -> None:
    """By the run that builds the template, and by one that has it from the server."""
    types = "import sqlalchemy\n" + project.files["app.py"]
    model = """
    size: Mapped[int] = mapped_column(index=True, comment="in cm", server_default="170")
    crew_id: Mapped[int | None] = mapped_column(sqlalchemy.ForeignKey("dancers.id"))


class Crew(Base):
    __tablename__ = "crews"
    id: Mapped[int] = mapped_column(primary_key=True)


engine ="""
    columns = """sa.Column("size", sa.String, server_default="160", nullable=True),
                    sa.Column("crew_id", sa.Integer), sa.Column("old", sa.Integer, unique=True),"""
    lacking = on_postgresql(project.with_files(app=types).change("app.py", "\n\n\nengine =", model))
    lacking = lacking.change(FIRST, 'sa.Column("name"', f'{columns} sa.Column("name"')
    env = POSTGRESQL_ENV.replace("Base.metadata", "Base.metadata, compare_server_default=True")
    lacking = lacking.with_paths({"migrations/env.py": env})
    for _ in range(2):
        run = lacking.run().expect(passed=1)
        run.says(DIFFERENCE, *DIFFERENCES)


DIFFERENCES = """
table crews: in the models only
type of dancers.size: VARCHAR() in the migrations, Integer() in the models
nullable of dancers.size: True in the migrations, False in the models
default of dancers.size: '160'::character varying in the migrations, 170 in the models
comment of dancers.size: None in the migrations, 'in cm' in the models
constraint dancers_old_key of dancers: in the migrations only
index ix_dancers_size of dancers: in the models only
fk None of dancers: in the models only
column dancers.old: in the migrations only
""".strip().splitlines()
