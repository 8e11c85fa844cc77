"""Each test function of each suite, on each database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.suites.harness import ROOT, Suite

if TYPE_CHECKING:
    from pathlib import Path

# Loops that outlive tests, in which connections live.
ONE_LOOP = "-oasyncio_default_test_loop_scope=session -oasyncio_default_fixture_loop_scope=session"
# What a suite names first.
NAMED = "-oarena_app=async_app:app -oarena_schema=models:Base"
SETTINGS = {
    "as_they_are": ("sqlite", f"sqlite {NAMED}"),
    "aged": ("sqlite", "postgresql", "postgresql -odriver=psycopg", "mysql"),
    "beside": ("sqlite",),
    "clients": ("sqlite",),
    "visibility": ("sqlite", "postgresql", "rollback", "mysql"),
    "visibility_sync": (
        "sqlite",
        "postgresql",
        "mysql -oarena_app=flask_app:app test_each_client.py",
    ),
    "visibility_flask": ("mysql",),
    "visibility_flask_sqlalchemy": ("postgresql",),
    "visibility_sqlmodel": ("sqlite",),
    "changes": ("sqlite", "postgresql", "clone test_changes.py", "mysql test_changes.py"),
    "isolated": (
        "sqlite",
        "postgresql",
        f"postgresql {ONE_LOOP}",
        "clone -oping test_endings.py test_rows.py",
        "mysql -oping",
    ),
    "factories": (
        "postgresql",
        "postgresql -odriver=psycopg",
        "clone test_connections.py",
        "mysql",
    ),
    "late": ("sqlite", "postgresql", "mysql test_failed.py test_left.py test_leaks.py"),
    "lifespan": ("postgresql", "sqlite -oarena_lifespan=session"),
    "lost": ("sqlite", "postgresql", "mysql"),
    "lost_sync": ("sqlite", "postgresql", "mysql"),
    "migrated": ("postgresql",),
    "processes": (
        "sqlite",
        "postgresql test_clients.py test_processes.py test_urls.py",
        "mysql test_clients.py test_urls.py",
    ),
    "race": (
        "postgresql",
        "postgresql -odriver=psycopg",
        "mysql",
        f"mysql -odriver=aiomysql {ONE_LOOP}",
        "sqlite test_unlocked.py",
    ),
    "redis": ("sqlite", "postgresql"),
    "races": (
        "postgresql",
        "postgresql -odriver=psycopg test_anomalies.py",
        "postgresql -odriver=psycopg2 test_anomalies.py",
        "mysql",
        "mysql -odriver=pymysql test_anomalies.py",
        "sqlite",
        "sqlite -odriver=pysqlite test_anomalies.py",
    ),
    "replay": (
        "sqlite",
        f"sqlite {ONE_LOOP}",
        "postgresql",
        f"postgresql {ONE_LOOP}",
        "postgresql -odriver=psycopg2",
        "mysql",
        "mysql -odriver=pymysql",
        "sqlite -odriver=pysqlite",
    ),
    "redirected": (
        "postgresql test_drivers.py test_pools.py test_wide.py",
        "postgresql -oarena_lifespan=on -oarena_schema=models:Base test_pools.py",
    ),
    "report": (
        "sqlite",
        "postgresql test_locks.py test_rights.py test_tasks.py test_uncommitted.py",
        "mysql test_rights.py",
    ),
    "drivers": (
        "sqlite -oping",
        "postgresql -oping",
        f"postgresql {ONE_LOOP} test_loops.py",
        f"postgresql {ONE_LOOP} -oping test_loops.py",
        "postgresql -odriver=psycopg -oping",
        "rollback -oping",
    ),
    "engines": ("sqlite",),
    "first_request": ("sqlite -oarena_database=sqlite", "postgresql", "clone", "mysql"),
    "network": ("sqlite",),
    "each_database": ("sqlite",),
    "memory": ("sqlite",),
    "mysql": ("mysql", f"mysql {ONE_LOOP} -oping", "mysql -odriver=aiomysql -oping"),
    "mysql_script": ("mysql",),
    "rollback": ("rollback -oping", "rollback -oarena_lock_timeout=0 test_kept.py"),
    "runners": ("postgresql",),
    "several": ("sqlite",),
    "two_engines": ("sqlite", "postgresql", "postgresql -odriver=psycopg", "mysql"),
    "wide": ("sqlite", "postgresql"),
}
SUITES = [
    Suite(ROOT / name, setting) for name, settings in SETTINGS.items() for setting in settings
]
# The run as a whole is beside its stories, so that no other worker waits for it.
STORIES = [(suite, story) for suite in SUITES for story in (*suite.stories(), "whole")]


@pytest.mark.parametrize(
    "suite, story", [pytest.param(*each, id="-".join(map(str, each))) for each in STORIES]
)
def test_story(suite: Suite, story: str, shared: Path) -> None:
    """The test of the inner run passed, or failed as it expects, or the whole run is right."""
    result = suite.result(shared)
    if reason := result.skipped(story):
        pytest.skip(reason)
    problems = result.whole() if story == "whole" else result.problems(story)
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


def test_each_folder_is_a_suite() -> None:
    assert {path.parent.name for path in ROOT.glob("*/pytest.ini")} == {*SETTINGS}
