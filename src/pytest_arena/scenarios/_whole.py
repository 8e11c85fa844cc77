"""Was this the whole run, and are the files there that say what was agreed on?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ConfigError
from pytest_arena.scenarios._statements import relative
from pytest_arena.scenarios._tries import skip_reason
from pytest_arena.scenarios.specs import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._config import Config
    from pytest_arena.scenarios._mapping import Mappings


__all__ = ["check_agreed", "uncollected", "what_is_left_out"]


def what_is_left_out(session: Any, found: Mappings, broken: list[str]) -> str:
    """Return why not all tests of the scenarios were run, as it was asked for; "" if all were.

    A choice that has left out none of them changes nothing: with ``-m "not slow"`` in the
    configuration a run may be whole.
    """
    config = session.config
    reasons = [*_narrowed(config), *_deselected(config, found), *_stopped(session)]
    if broken:
        reasons.append(f"{', '.join(broken)} could not be collected")
    if not found.collectors:
        reasons.append("no process has told of its tests")
    return "; ".join(reasons)


def _narrowed(config: Any) -> Iterator[str]:
    """Only a part was collected."""
    outside = [arg for arg in _paths_asked_for(config) if not _is_all(arg, config)]
    if outside and not _covers_testpaths(config):
        yield " ".join(_shown(arg, config) for arg in outside) + _HINT * (
            not config.getini("testpaths")
        )
    yield from _ignored(config)
    for name in ("lf", "stepwise"):
        if getattr(config.option, name, False):
            yield {"lf": "--lf"}.get(name, f"--{name}")


_HINT = " (testpaths, in pytest's configuration, says what all of them are)"


def _paths_asked_for(config: Any) -> list[str]:
    """Those on the command line; without them, and outside of the root, the folder of the call."""
    source = getattr(config.args_source, "name", "")
    return list(config.args) if source in {"ARGS", "INVOCATION_DIR"} else []


def _shown(arg: str, config: Any) -> str:
    path, colons, rest = arg.partition("::")
    return f"{relative(_path(path, config), config.rootpath)}{colons}{rest}"


def _ignored(config: Any) -> Iterator[str]:
    """What is left out on the command line; in the configuration it says what all of them are."""
    given = " ".join(map(str, config.invocation_params.args))
    ignored = [*(config.option.ignore or ()), *(config.option.ignore_glob or ())]
    for one in ignored:
        if one in given and _is_of_testpaths(_path(one, config), config):
            yield f"--ignore={_shown(one, config)}"


def _is_of_testpaths(path: Path, config: Any) -> bool:
    """Whether tests may be there; anywhere, where nobody says where they are."""
    wanted = config.getini("testpaths")
    found = (one for text in wanted for one in config.rootpath.glob(text))
    return not wanted or any(path.is_relative_to(one) or one.is_relative_to(path) for one in found)


def _is_all(arg: str, config: Any) -> bool:
    return "::" not in arg and _path(arg, config) == config.rootpath


def _covers_testpaths(config: Any) -> bool:
    wanted = config.getini("testpaths")
    asked = [_path(arg, config) for arg in _paths_asked_for(config) if "::" not in arg]
    paths = [found for one in wanted for found in sorted(config.rootpath.glob(one))]
    return bool(paths) and all(any(path.is_relative_to(one) for one in asked) for path in paths)


def _path(arg: str, config: Any) -> Path:
    return Path(config.invocation_params.dir, arg).resolve()


def _deselected(config: Any, found: Mappings) -> Iterator[str]:
    gone = {one.test for one in found.all() if one.is_deselected}
    if not gone:
        return
    given = [f"{flag} {value}" for flag, name in _CHOICES if (value := _chosen(config, name))]
    all_of_them = len({one.test for one in found.all()})
    counted = f"{len(gone)} of {all_of_them} tests with a scenario deselected"
    yield f"{', '.join(given)}: {counted}" if given else counted


_CHOICES = (
    ("-k", "keyword"),
    ("-m", "markexpr"),
    ("--deselect", "deselect"),
    ("--scenario", "arena_scenario"),
    ("--group", "group"),  # of pytest-split: a shard
)


def _chosen(config: Any, name: str) -> str:
    value = getattr(config.option, name, None)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _stopped(session: Any) -> Iterator[str]:
    distributed = session.config.pluginmanager.get_plugin("dsession")
    stops = (session.shouldfail, session.shouldstop, getattr(distributed, "shouldstop", ""))
    if stop := next(filter(None, stops), ""):
        yield str(stop)
    elif session.exitstatus == _INTERRUPTED:
        yield "interrupted"


_INTERRUPTED = 2


def uncollected(report: Any) -> Problem:
    """Return the problem of a file that could not be collected, or has skipped itself."""
    if report.failed:
        what, hint = "could not be collected", "pytest shows the error"
    else:
        what, hint = f"skips itself: {skip_reason(report.longrepr)}", ""
    return Problem(
        spec=report.nodeid,
        line=0,
        what=f"{what}; the mapping is incomplete: nobody knows which scenarios its tests prove",
        hint=hint,
        is_error=report.failed,
    )


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
