"""A plugin that writes the outcome of each test to a file.

If pytest-arena is off, this plugin also registers the options, hooks and markers of pytest-arena.
Otherwise pytest would refuse them.
"""

import json
import os
from pathlib import Path
from typing import Any

from pytest_arena._config._options import FLAGS, OPTIONS

FILE = "PYTEST_OUTCOMES_FILE"
"""the environment variable with the path of the outcomes' file"""
DATABASES = "databases-"
"""the prefix of the files in the same folder with the databases of the app's engines"""
_outcomes: dict[str, tuple[str, str]] = {}
"""the outcome and the failure's report of each test"""


def _is_off(pluginmanager: Any) -> bool:
    return bool(pluginmanager.is_blocked("arena"))


def pytest_addoption(parser: Any, pluginmanager: object) -> None:
    """Register the options if pytest-arena is off."""
    if not _is_off(pluginmanager):
        return
    for option in OPTIONS:
        kind = "linelist" if option.many else "string"
        parser.addini(option.ini, "", type=kind)
        names = filter(None, (option.flag, option.short))
        parser.addoption(*names, dest=option.ini)
    for flag in FLAGS:
        values = 1 if flag.metavar else "?"
        parser.addoption(flag.flag, dest=flag.name, nargs=values)


def pytest_addhooks(pluginmanager: Any) -> None:
    """Register the hooks if pytest-arena is off."""
    if _is_off(pluginmanager):
        from pytest_arena._run.levels._participants import LevelHooks  # noqa: PLC0415 - seldom needed

        pluginmanager.add_hookspecs(LevelHooks)


def pytest_configure(config: Any) -> None:
    """Register the markers if pytest-arena is off."""
    if _is_off(config.pluginmanager):
        for marker in ("arena", "scenario"):
            config.addinivalue_line("markers", f"{marker}: of pytest-arena")


def pytest_collectreport(report: Any) -> None:
    """Record a file that cannot be imported."""
    if report.failed:
        _outcomes[report.nodeid] = ("error", str(report.longrepr))


def pytest_runtest_logreport(report: Any) -> None:
    """Record a test. The worst of its three phases counts."""
    test = report.nodeid
    before, _ = _outcomes.get(test, ("", ""))
    if report.failed:
        outcome = "failed" if report.when == "call" else "error"
        text = str(report.longrepr or "")
        _outcomes[test] = (outcome, text)
    elif not before or (report.when == "call" and before == "passed"):
        _outcomes[test] = (report.outcome, "")


def pytest_sessionfinish(session: Any) -> None:
    """Write the outcomes of all workers once. Each process writes the databases of its engines."""
    file = Path(os.environ[FILE])
    if not hasattr(session.config, "workerinput"):
        file.write_text(json.dumps(_outcomes), encoding="utf-8")
    if not _is_off(session.config.pluginmanager):
        from pytest_arena._fixtures import RUNS  # noqa: PLC0415 - imports SQLAlchemy

        databases = RUNS[session.config].databases
        named, _ = databases.requested()
        lines = "\n".join([*named, *databases.files.of_app])
        process_file = file.with_name(f"{DATABASES}{os.getpid()}")
        process_file.write_text(lines, encoding="utf-8")
