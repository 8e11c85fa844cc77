"""Runs a test once more, without a report."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import pluggy

from pytest_arena._product import nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pytest_arena._run._run import ArenaRun

hook = pluggy.HookimplMarker("pytest")


class Repeats:
    """The plugin that runs tests again after the last one. pytest does not show these runs.

    They do not change the cache of failures, JUnit's XML or the exit status.
    """

    def __init__(self, config: pytest.Config, run: ArenaRun) -> None:
        # pytest registers the module of its runner by this name.
        self._runner: Any = config.pluginmanager.get_plugin("runner")
        self._run = run
        self._after: Callable[[], None] = nothing

    @classmethod
    def of(cls, config: pytest.Config, run: ArenaRun) -> Repeats:
        """Return the plugin of a run, registered at the first call."""
        name = "arena_repeats"
        plugin: Repeats | None = config.pluginmanager.get_plugin(name)
        if plugin is None:
            plugin = cls(config, run)
            config.pluginmanager.register(plugin, name)
        return plugin

    def run_again(
        self,
        item: pytest.Item,
        following: pytest.Item | pytest.Collector | None,
        after: Callable[[], None] = nothing,
    ) -> None:
        """Run a test once more, and call ``after`` where pytest records its warnings.

        With its parent as ``following``, pytest keeps wide fixtures.
        """
        self._after = after
        with (
            mock.patch.object(self._run, "is_repeating", new=True),
            self._run.ledger.forgetting(),
        ):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)

    @hook(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run a test without reports, before a plugin can rerun a failed test."""
        if not self._run.is_repeating:
            return None
        # Warnings are not shown. Filters that turn them into errors stay.
        with warnings.catch_warnings(record=True):
            self._runner.runtestprotocol(item, log=False, nextitem=nextitem)
        self._after()
        return True

    def tear_down(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Tear down the wide fixtures that a test has left, and that the next one does not use."""
        with mock.patch.object(self._run, "is_repeating", new=True):
            self._runner.pytest_runtest_teardown(item, following)


def is_repeatable(item: pytest.Item) -> bool:
    """Return whether a test can run again: examples and subtests would be reported again."""
    function = getattr(item, "obj", None)
    has_subtests = "subtests" in getattr(item, "fixturenames", ())
    return not (getattr(function, "is_hypothesis_test", False) or has_subtests)
