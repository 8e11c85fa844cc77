"""Compares migrations with the models."""

from __future__ import annotations

import io
import warnings
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import blame, described

if TYPE_CHECKING:
    from pathlib import Path


def compare(ini: Path) -> tuple[tuple[str, ...], str]:
    """Compare like ``alembic check``. Return the differences, and why nothing was compared.

    Call it while engines connect to the migrated database. It runs ``env.py`` again, so that
    arguments such as ``include_object`` count.
    """
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - an extra
    from alembic.config import Config  # noqa: PLC0415 - the same
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - the same
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - the same

    # `env.py` may read the command line.
    options = Namespace(config=str(ini), x=None, name=None, raiseerr=False)
    config = Config(str(ini), stdout=io.StringIO(), cmd_opts=options)
    differences: list[str] = []

    def read(_heads: Any, context: Any) -> list[object]:
        for difference in compare_metadata(context, context.opts["target_metadata"]):
            # The changes of one column are in an inner list.
            changes = difference if isinstance(difference, list) else [difference]
            differences.extend(map(_described, changes))
        return []

    scripts = ScriptDirectory.from_config(config)
    try:
        # The suite may turn SQLAlchemy's warnings about the reflection into errors.
        with (
            warnings.catch_warnings(action="ignore"),
            EnvironmentContext(config, scripts, fn=read),
        ):
            scripts.run_env()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - of env.py
        text = f"{described(error)} ({blame(error)})"
        # Machines share templates, so do not store paths of this machine.
        text = text.replace(f"{ini.parent.absolute()}/", "").replace("\n", " ")
        return (), text
    return tuple(differences), ""


_SIDES = {"add": "in the models only", "remove": "in the migrations only"}


def _described(difference: tuple[Any, ...]) -> str:
    """Return words for a difference, such as ``column shops.city: in the models only``.

    The tuples: https://alembic.sqlalchemy.org/en/latest/api/autogenerate.html
    """
    action, _, noun = str(difference[0]).partition("_")
    if action == "modify":
        _, _, table, column, *_ = difference
        return f"{noun} of {table}.{column}: not the same in migrations and models"
    item = difference[-1]
    name = getattr(item, "fullname", None) or f"{item.name} of {item.table}"
    if noun == "column":
        name = f"{difference[2]}.{item.name}"
    return f"{noun.replace('_', ' ')} {name}: {_SIDES.get(action, action)}"
