"""Compares the database that Alembic's migrations build with the models that ``env.py`` names."""

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
    """What Alembic's comparison of a migrated database with the models says."""

    differences: tuple[str, ...] = ()
    failure: str = ""  # why nothing was compared


# `env.py` may read these attributes of the command line. `alembic check` has the same ones.
_COMMAND_LINE = {"x": None, "name": None, "raiseerr": False, "autogenerate": False}
# A new migration, of which nothing but its operations is wanted.
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
    """Do what ``alembic check`` does; call where ``env.py`` reaches the migrated database.

    ``env.py`` runs again, so that its ``include_object``, ``compare_type`` and the like count.
    """
    try:
        # SQLAlchemy warns of what it cannot reflect; the suite may turn warnings into errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            differences = _differences(ini)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code; SystemExit as well
        return Comparison(failure=_failure(error, ini))
    return Comparison(tuple(map(_described, _flat(differences))))


def _differences(ini: Path) -> list[Any]:
    """Return what Alembic would write into a new migration.

    ``command.check`` of older versions raises it as a text, and fails where an ``env.py`` takes
    empty migrations out.
    """
    from alembic.autogenerate import RevisionContext  # noqa: PLC0415 - an extra
    from alembic.config import Config  # noqa: PLC0415 - the same
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - the same
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - the same

    options = Namespace(config=str(ini), **_COMMAND_LINE)
    config = Config(str(ini), stdout=io.StringIO(), cmd_opts=options)
    scripts = ScriptDirectory.from_config(config)
    revision = RevisionContext(config, scripts, dict(_REVISION))

    def autogenerate(heads: Any, context: Any) -> list[Any]:
        revision.run_autogenerate(heads, context)
        return []

    with EnvironmentContext(config, scripts, fn=autogenerate, template_args=revision.template_args):
        scripts.run_env()
    upgrades = [ops for one in revision.generated_revisions[-1:] for ops in one.upgrade_ops_list]
    return [difference for ops in upgrades for difference in ops.as_diffs()]


def _failure(error: BaseException, ini: Path) -> str:
    if "does not provide a MetaData" in str(error):
        return "env.py names no models: target_metadata = <your Base>.metadata"
    line = blame(error)
    text = described(error)
    if line is not None:
        text = f"{text} ({line})"
    # A template is shared by machines: the paths of this one are not stored with it.
    return text.replace(f"{ini.parent.absolute()}/", "").replace("\n", " ")


def _flat(differences: list[Any]) -> list[tuple[Any, ...]]:
    """Return each difference alone: Alembic puts the changes of one column into a list."""
    flat: list[tuple[Any, ...]] = []
    for difference in differences:
        if isinstance(difference, list):
            flat.extend(difference)
        else:
            flat.append(difference)
    return flat


_NOUNS = {"fk": "foreign key"}
_SIDES = {"add": "in the models only", "remove": "in the migrations only"}


def _described(difference: tuple[Any, ...]) -> str:
    """Return the words for one difference, as ``column shops.city: in the models only``.

    https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html has the tuples' forms.
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


def _value(value: Any) -> str:
    """Return a type, a comment, a default or whether a column is nullable, as text."""
    clause = getattr(value, "arg", None)  # a server default has its SQL there
    return repr(value) if clause is None else str(clause)


def _item_name(item: Any) -> str:
    """Return the name of a table, or of a thing that belongs to one, with the table's."""
    table = getattr(item, "table", None)
    if table is None:  # the table itself, or another package's kind of difference
        return str(getattr(item, "fullname", item))
    if item.name:
        return f"{item.name} of {table.fullname}"
    columns = ", ".join(column.name for column in item.columns)
    return f"of {table.fullname} ({columns})"
