"""Are the files there that say what was agreed on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._config import Config

__all__ = ["check_agreed"]

_LOCK = "scenarios.lock"  # what it is called where nobody has named it


def check_agreed(wanted: Config, *, lists_only: bool) -> None:
    """Look for the baseline and the lock file that options name.

    A list may lack them: what is there to be accepted is found by one.

    Raises:
        ConfigError: it is not there. Nothing would be said of it until something is lacking.
    """
    if lists_only:
        return
    name = wanted.scenario_baseline
    if name and not (wanted.root / name).is_file():
        raise _missing(
            wanted,
            "scenario_baseline",
            f"write it:\npytest --arena-scenario-baseline= --scenarios-out=json:scenarios.json\n"
            f"arena scenarios report scenarios.json --baseline {name}",
        )
    if (
        wanted.scenario_lock not in {"", _LOCK}
        and not (wanted.root / wanted.scenario_lock).exists()
    ):
        raise _missing(wanted, "scenario_lock", "arena scenarios accept --all   writes it")


def _missing(wanted: Config, option: str, fix: str) -> ConfigError:
    return ConfigError(
        f"arena_{option} names {getattr(wanted, option)}, which is not there",
        why="a name that is misspelt would go unnoticed, and so would what was agreed on",
        cause=wanted.place(option),
        fix=fix,
    )
