"""What do ``@pytest.mark.arena(…)`` and ``scenario(…)`` ask for?"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_arena._config import ISOLATIONS, KEEPS, OptionValue, check_choice
from pytest_arena._config._load import nearest
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MARKER", "SCENARIO_MARKER", "marker_values"]

MARKER = "arena(isolation='copy', keep='failed', seed=False, schema=False)"
SCENARIO_MARKER = (
    "scenario(name, spec='', rev='', row={}): the test proves this scenario of a specification in "
    "arena_specs. name: its name, 'Feature :: name' or '@ID'; spec: its file; rev: the version of "
    "its steps that was reviewed; row: of an outline, one row of its examples. Does nothing where "
    "arena_specs is not set."
)
_MARKER_NAMES = ("isolation", "keep", "seed", "schema")
_MARKER_ARGUMENTS = inspect.Signature(
    [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in _MARKER_NAMES]
)


def marker_values(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], *, place: str
) -> dict[str, Any]:
    """Return what ``@pytest.mark.arena(…)`` asks for.

    Raises:
        ConfigError: an argument that it does not have, or a value that cannot be right.
    """
    try:
        _MARKER_ARGUMENTS.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise _wrong_marker(str(error), place, _right_marker(args, kwargs)) from None
    for name, choices in (("isolation", ISOLATIONS), ("keep", KEEPS)):
        if name in kwargs:
            form = f"@pytest.mark.arena({name}='{{}}')"
            check_choice(OptionValue(str(kwargs[name]), form, place), choices)
    for name in ("seed", "schema"):
        if not isinstance(kwargs.get(name, True), bool):
            problem = f"{name}={kwargs[name]!r} is neither True nor False"
            raise _wrong_marker(problem, place, f"@pytest.mark.arena({name}=False)")
    return dict(kwargs)


def _right_marker(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The arguments as they were given, each by a name that there is.

    Nothing else: whoever pastes a word like ``schema=False`` would ask for an empty database.
    """
    given = {("keep" if one in KEEPS else "isolation"): one for one in args}
    given |= {nearest(name, _MARKER_NAMES): value for name, value in kwargs.items()}
    return f"@pytest.mark.arena({', '.join(f'{name}={given[name]!r}' for name in given)})"


def _wrong_marker(problem: str, place: str, fix: str) -> ConfigError:
    return ConfigError(
        f"@pytest.mark.arena: {problem}",
        why="the test would not run as it says",
        cause=place,
        fix=fix,
    )
