"""Writes down how each test of a run has ended; makes our options known where our plugin is off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pytest_arena._config._options import FLAGS, OPTIONS

FILE = "PYTEST_OUTCOMES_FILE"
MEANT = "meant-"  # begins the names of the files beside it
_outcomes: dict[str, tuple[str, str]] = {}


def _is_off(pluginmanager: Any) -> bool:
    return bool(pluginmanager.is_blocked("arena"))


def pytest_addoption(parser: Any, pluginmanager: Any) -> None:
    """Without the plugin, what is configured for it is no mistake."""
    if _is_off(pluginmanager):
        for option in OPTIONS:
            parser.addini(option.ini, "", type="linelist" if option.many else "string")
            parser.addoption(
                *filter(None, (option.flag, option.short)), dest=option.ini
            )
        for flag in FLAGS:
            parser.addoption(
                flag.flag, dest=flag.name, nargs=1 if flag.metavar else "?"
            )


def pytest_addhooks(pluginmanager: Any) -> None:
    """Nor are hooks of ours in a conftest.py."""
    if _is_off(pluginmanager):
        from pytest_arena._run.levels._participants import LevelHooks  # noqa: PLC0415 - for this run alone

        pluginmanager.add_hookspecs(LevelHooks)


def pytest_configure(config: Any) -> None:
    """Nor are our markers."""
    if _is_off(config.pluginmanager):
        for marker in ("arena", "scenario"):
            config.addinivalue_line("markers", f"{marker}: of pytest-arena")


def pytest_collectreport(report: Any) -> None:
    """A file that does not import has no tests to compare."""
    if report.failed:
        _outcomes[report.nodeid] = ("error", str(report.longrepr))


def pytest_runtest_logreport(report: Any) -> None:
    """The worst of a test's three phases counts."""
    told = str(report.longrepr or "")
    before = _outcomes.get(report.nodeid)
    if report.failed:
        _outcomes[report.nodeid] = (
            "failed" if report.when == "call" else "error",
            told,
        )
    elif before is None or (report.when == "call" and before[0] == "passed"):
        _outcomes[report.nodeid] = (report.outcome, "")


def pytest_sessionfinish(session: Any) -> None:
    """Write all down, once for all workers; and each process which databases its engines meant."""
    file = Path(os.environ[FILE])
    if not hasattr(session.config, "workerinput"):
        file.write_text(json.dumps(_outcomes), encoding="utf-8")
    if not _is_off(session.config.pluginmanager):
        from pytest_arena._fixtures import RUNS  # noqa: PLC0415 - as above

        databases = RUNS[session.config].databases
        meant = [*databases.requested()[0], *databases.files.of_app]
        file.with_name(f"{MEANT}{os.getpid()}").write_text(
            "\n".join(meant), encoding="utf-8"
        )
