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


def compare(ini: Path) -> Comparison:
    """Compare like ``alembic check``. Call it while engines connect to the migrated database.

    It runs ``env.py`` again, so that arguments such as ``include_object`` count.
    """
    try:
        # The suite may turn SQLAlchemy's warnings about the reflection into errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _compare(ini)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - of the user's code, also SystemExit
        line = blame(error)
        text = f"{described(error)} ({line})" if line else described(error)
        # Machines share templates, so do not store paths of this machine.
        text = text.replace(f"{ini.parent.absolute()}/", "").replace("\n", " ")
        return Comparison(failure=text)


def _compare(ini: Path) -> Comparison:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - an extra
    from alembic.config import Config  # noqa: PLC0415 - the same
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - the same
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - the same

    # `env.py` may read the command line.
    options = Namespace(config=str(ini), x=None, name=None, raiseerr=False)
    config = Config(str(ini), stdout=io.StringIO(), cmd_opts=options)
    scripts = ScriptDirectory.from_config(config)
    differences: list[str] = []

    def read(_heads: Any, context: Any) -> list[object]:
        for difference in compare_metadata(context, context.opts["target_metadata"]):
            # The changes of one column are in an inner list.
            changes = difference if isinstance(difference, list) else [difference]
            differences.extend(map(_described, changes))
        return []

    with EnvironmentContext(config, scripts, fn=read):
        scripts.run_env()
    return Comparison(tuple(differences), heads=tuple(sorted(scripts.get_heads())))


_SIDES = {"add": "in the models only", "remove": "in the migrations only"}


def _described(difference: tuple[Any, ...]) -> str:
    """Return words for a difference, such as ``column shops.city: in the models only``.

    The tuples: https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html
    """
    action, _, noun = str(difference[0]).partition("_")
    if action == "modify":
        _, _, table, column, _, *values = difference
        old, new = (str(getattr(value, "arg", repr(value))) for value in values)
        return (
            f"{noun} of {table}.{column}: {old} in the migrations, {new} in the models"
        )
    item = difference[-1]
    name = getattr(item, "fullname", None) or f"{item.name} of {item.table}"
    if noun == "column":
        name = f"{difference[2]}.{item.name}"
    return f"{noun.replace('_', ' ')} {name}: {_SIDES.get(action, action)}"
