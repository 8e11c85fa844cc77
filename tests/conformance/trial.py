"""Are the promises kept? Real suites, run in processes of their own, for one setting."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.conformance import stories_failing as failing
from tests.conformance.products import lacks_of, product_of
from tests.conformance.project import kept_stories, project, written_for
from tests.conformance.setting import CAPABILITIES, Setting
from tests.conformance.verdict import Broken, Told, Verdict, judged
from tests.example import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.example import Example

__all__ = ["ORDERS", "Conformance", "Trial", "promises_hold"]

ORDERS = ("forward", "reverse", "shuffle:1")
# A planted defect may leave a task that nobody can cancel. Before pytest 9 a run cannot exit then.
_LONGEST = ("faulthandler_timeout=90", "faulthandler_exit_on_timeout=true")
_HANGS = "Timeout (0:01:30)!"


class Trial:
    """The stories of one setting, in one folder: each method runs some and returns a verdict.

    ``planted`` are more files of the project, and ``plugins`` of the setting may be among them:
    that is how a variant of one's own, or a planted defect, comes in.

    Example::

        verdict = Trial(Setting(engine="pysqlite", runner="plain"), tmp_path).kept()
        assert not verdict.promises, verdict
    """

    def __init__(
        self, setting: Setting, folder: Path, planted: Mapping[str, str] | None = None
    ) -> None:
        self.setting, self.folder, self._count = setting, folder, count(1)
        self._product, self._planted = product_of(setting), planted or {}

    def kept(self, orders: tuple[str, ...] = ORDERS, *args: str) -> Verdict:
        """Run what goes well, P1 to P7, once in each order, on one cache, as runs follow runs.

        Further arguments are pytest's. Costs one to two seconds an order.
        """
        example = self._with({**kept_stories(self.setting), "test_killed.py": self._killed})
        verdict = Verdict(self.setting)
        for order in orders:
            verdict += self._judged(example, order, *args, CONFORMANCE_ORDER=order)
        return verdict

    def killed(self) -> Verdict:
        """P7: a run is killed in the middle of a transaction; the next one starts as ever."""
        example = self._with({"test_killed.py": self._killed})
        before = self._developers(example)
        run, told = self._ran(example, CONFORMANCE_KILL="1")
        if run.status != -signal.SIGKILL or not told.urls:
            return self._found(Broken("P7", "the run that was to be killed", run.output))
        touched = self._touched(example, before, "the killed run")
        after = self._judged(example, "after the kill")
        return after + self._found(*touched, *self._left(told.urls, "after the next run"))

    def told(self) -> Verdict:
        """P7 and P8: what is left, refused or cannot be built is told; the next test is whole."""
        seed = {name: self._written(text) for name, text in failing.BROKEN_SEED.items()}
        left = self._with({"test_left.py": self._written(failing.LEFT)})
        return self._judged(left, "what is left") + self._judged(self._with(seed), "a bad seed")

    def cheap(self) -> Verdict:
        """P10: what a test reads and writes follows what it changed."""
        files = {
            "seed.py": failing.COST_SEED,
            "test_cost.py": self._written(failing.COST),
        }
        example = self._with(files)
        conftest = example.files["conftest.py"] + failing.COST_CONFTEST
        return self._judged(example.with_paths({"conftest.py": conftest}), "what it costs")

    @property
    def _killed(self) -> str:
        return self._written(failing.KILLED)

    def _written(self, story: str) -> str:
        return written_for(self.setting, story)

    def _with(self, files: Mapping[str, str]) -> Example:
        """Return a project with these stories, in a folder and with a cache of its own."""
        folder = self.folder / str(next(self._count))
        return project(self.setting, folder).with_paths({**files, **self._planted})

    def _found(self, *broken: Broken) -> Verdict:
        return Verdict(self.setting, 0, broken)

    def _judged(self, example: Example, name: str, *args: str, **env: str) -> Verdict:
        before = self._developers(example)
        run, told = self._ran(example, *args, **env)
        touched = self._touched(example, before, name)
        left = self._left(told.urls, f"after the run, {name}")
        found = (*touched, *left, *self._shown(run, name))
        return judged(self.setting, run, told, name=name) + self._found(*found)

    def _ran(self, example: Example, *args: str, **env: str) -> tuple[Run, Told]:
        out = example.folder.parent / "told.jsonl"
        out.unlink(missing_ok=True)
        runner = "anyio" if self.setting.runner.startswith("anyio") else ""
        plugins = [name for name in (runner, *self.setting.plugins) if name]
        given = [word for name in plugins for word in ("-p", name)]
        if pytest.version_tuple >= (9,):
            given += [word for option in _LONGEST for word in ("-o", option)]
        variables = {"CONFORMANCE_OUT": str(out), **self.setting.env, **env}
        try:
            run = example.run("-q", "--tb=short", *given, *args, env=variables)
        except subprocess.TimeoutExpired as hung:
            run = Run(-1, f"it hangs: {hung}", example.folder)
        if _HANGS in run.output:
            run = replace(run, status=-1)
        return run, Told.read(out)

    def _developers(self, example: Example) -> object:
        self._product.make_developers(self.setting, example.folder)
        return self._product.developers(self.setting, example.folder)

    def _touched(self, example: Example, before: object, name: str) -> list[Broken]:
        same = self._product.developers(self.setting, example.folder) == before
        where = f"the developer's database, {name}"
        return [] if same else [Broken("P4", where, "it is not what it was")]

    def _shown(self, run: Run, name: str) -> Iterator[Broken]:
        for secret in self._product.secrets(self.setting):
            if secret in run.output:
                where = run.output.partition(secret)[0].rpartition("\n")[2]
                yield Broken("P8", f"the output, {name}", f"a password is shown, after {where!r}")

    def _left(self, urls: Iterable[str], where: str) -> Iterator[Broken]:
        for url in urls:
            if not self._product.is_gone(self.setting, url):
                yield Broken("P7", where, f"{url} is still there")


def promises_hold(
    setting: Setting,
    folder: Path,
    planted: Mapping[str, str] | None = None,
    *,
    orders: tuple[str, ...] = ORDERS,
) -> Verdict:
    """Run all stories for a setting, and assert that every promise was kept.

    Costs about ten seconds: six runs of pytest. ``planted`` as for `Trial`. Print the verdict to
    see what was run, and what the setting does not promise.

    Example::

        def test_the_promises(tmp_path):
            print(promises_hold(Setting(journal="wal"), tmp_path))

    Raises:
        AssertionError: a promise was not kept; all that were found are told.
    """
    __tracebackhide__ = True
    trial = Trial(setting, folder, planted)
    verdict = trial.kept(orders) + trial.killed() + trial.told() + trial.cheap()
    return verdict.check()


class Conformance:
    """A test class: the promises for one setting, a test for each group of stories.

    Example::

        class TestMine(Conformance):
            setting = Setting(isolation="copy", engine="pysqlite", runner="plain")

    What the setting declares not to keep is one more test, reported as an expected failure with
    its reason (``pytest -rx``). ``planted`` as for `Trial`.
    """

    setting: ClassVar[Setting] = Setting()
    planted: ClassVar[Mapping[str, str]] = {}
    orders: ClassVar[tuple[str, ...]] = ORDERS

    @pytest.fixture
    def trial(self, tmp_path: Path) -> Trial:
        """The stories of this class's setting."""
        return Trial(self.setting, tmp_path, self.planted)

    def test_what_is_done_is_kept(self, trial: Trial) -> None:
        """P1 to P7 in suites in which all goes well, in several orders."""
        print(trial.kept(self.orders).check())

    def test_a_killed_run_leaves_nothing(self, trial: Trial) -> None:
        """P7 after ``kill -9``."""
        trial.killed().check()

    def test_what_goes_wrong_is_told(self, trial: Trial) -> None:
        """P7 and P8."""
        trial.told().check()

    def test_cost_follows_the_changes(self, trial: Trial) -> None:
        """P10."""
        trial.cheap().check()

    def test_what_is_not_promised(self) -> None:
        """Tell the exceptions, and what is left out for each."""
        if lacks := lacks_of(self.setting):
            pytest.xfail(
                "; ".join(f"{name} ({CAPABILITIES[name]}): {lacks[name]}" for name in lacks)
            )
