"""Compares migrations with the models."""

from __future__ import annotations

import io
import warnings
from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import blame, described

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of Alembic's comparison of a migrated database with the models."""

    differences: tuple[str, ...] = ()
    failure: str = ""  # why nothing was compared
    heads: tuple[str, ...] = ()  # the revisions that no migration follows

    def next_step(self, ini: str) -> str:
        """Return the command that writes the migration. ``ini`` is a path from pytest's folder."""
        alembic = "alembic" if ini == "alembic.ini" else f"alembic -c {ini}"
        command = f"{alembic} upgrade heads && {alembic} revision --autogenerate"
        if len(self.heads) > 1:
            command += " --head=heads"
        return f"{command}   on your own database"


# Attributes of the command line that `env.py` may read, as in `alembic check`.
_COMMAND_LINE = {"x": None, "name": None, "raiseerr": False, "autogenerate": False}
# The arguments of a new migration. Only its operations are used.
_REVISION = {
    "message": None,
    "autogenerate": True,
    "sql": False,
    "head": "head",
    "splice": False,
    "branch_label": None,
    "version_path": None,
    "rev_id": None,
    "depends_on": None,
}


def compare(ini: Path) -> Comparison:
    """Compare like ``alembic check``. Call it while engines connect to the migrated database.

    It runs ``env.py`` again, so that arguments such as ``include_object`` count.
    """
    try:
        # The suite may turn SQLAlchemy's warnings about the reflection into errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            differences, heads = _differences(ini)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - of the user's code, also SystemExit
        return Comparison(failure=_failure(error, ini))
    return Comparison(tuple(map(_described, _flat(differences))), heads=heads)


def _differences(ini: Path) -> tuple[list[object], tuple[str, ...]]:
    """Return the differences that Alembic would write into a new migration, and the heads.

    ``command.check`` is not used: in older versions it raises a text, and it fails if ``env.py``
    removes empty migrations.
    """
    from alembic.autogenerate import RevisionContext  # noqa: PLC0415 - an extra
    from alembic.config import Config  # noqa: PLC0415 - the same
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - the same
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - the same

    options = Namespace(config=str(ini), **_COMMAND_LINE)
    config = Config(str(ini), stdout=io.StringIO(), cmd_opts=options)
    scripts = ScriptDirectory.from_config(config)
    revision = RevisionContext(config, scripts, dict(_REVISION))

    def autogenerate(heads: Any, context: Any) -> list[object]:
        revision.run_autogenerate(heads, context)
        return []

    with EnvironmentContext(
        config, scripts, fn=autogenerate, template_args=revision.template_args
    ):
        scripts.run_env()
    differences: list[object] = []
    for script in revision.generated_revisions[-1:]:
        for operations in script.upgrade_ops_list:
            differences.extend(operations.as_diffs())
    return differences, tuple(sorted(scripts.get_heads()))


def _failure(error: BaseException, ini: Path) -> str:
    if "does not provide a MetaData" in str(error):
        return (
            "env.py gives Alembic no models, as by "
            "context.configure(…, target_metadata=<your Base>.metadata)"
        )
    line = blame(error)
    text = described(error)
    if line is not None:
        text = f"{text} ({line})"
    # Machines share templates, so do not store paths of this machine.
    return text.replace(f"{ini.parent.absolute()}/", "").replace("\n", " ")


def _flat(differences: list[Any]) -> list[tuple[object, ...]]:
    """Flatten a list, in which Alembic puts the changes of one column into an inner list."""
    flat: list[tuple[object, ...]] = []
    for difference in differences:
        if isinstance(difference, list):
            flat.extend(difference)
        else:
            flat.append(difference)
    return flat


_NOUNS = {"fk": "foreign key"}
_SIDES = {"add": "in the models only", "remove": "in the migrations only"}


def _described(difference: tuple[Any, ...]) -> str:
    """Return words for a difference, such as ``column shops.city: in the models only``.

    The tuples: https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html
    """
    action, _, noun = str(difference[0]).partition("_")
    if action == "modify":
        _, schema, table, column, _, by_migrations, by_models = difference
        name = f"{noun} of {_joined(schema, table, column)}"
        shown = f"{_value(by_migrations)} in the migrations, {_value(by_models)} in the models"
        return f"{name}: {shown}"
    if noun == "column":
        _, schema, table, column = difference
        name = _joined(schema, table, column.name)
    else:
        name = _item_name(difference[1])
    noun = _NOUNS.get(noun, noun.replace("_", " "))
    return f"{noun} {name}: {_SIDES.get(action, action)}"


def _joined(*names: str | None) -> str:
    return ".".join(filter(None, names))


def _value(value: object) -> str:
    """Return a type, a comment, a default or a nullable flag as text."""
    clause = getattr(value, "arg", None)  # a server default has its SQL there
    return repr(value) if clause is None else str(clause)


def _item_name(item: Any) -> str:
    """Return the name of a table, or of its constraint or index with the table's name."""
    table = getattr(item, "table", None)
    if table is None:  # the table itself, or another package's kind of difference
        return str(getattr(item, "fullname", item))
    if item.name:
        return f"{item.name} of {table.fullname}"
    columns = ", ".join(column.name for column in item.columns)
    return f"of {table.fullname} ({columns})"
