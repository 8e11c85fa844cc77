"""The processes of a random walk: the run of pytest, and another one that knows no arena."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from tests.conformance.products import product_of
from tests.conformance.project import project
from tests.conformance.walk_child import FILES, MARK

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conformance.setting import Setting

__all__ = ["Child", "Processes"]

_PATIENCE_SECONDS = 60


class Child:
    """A process that is told what to do, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._printed: list[str] = []

    def tell(self, **command: object) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Return the next answer."""
        assert self._process.stdout is not None
        alarm = threading.Timer(_PATIENCE_SECONDS, self._process.kill)
        alarm.start()
        try:
            for line in self._process.stdout:
                if line.startswith(MARK):
                    return dict(json.loads(line.removeprefix(MARK)))
                self._printed.append(line)
        finally:
            alarm.cancel()
        self.kill()
        raise AssertionError("the run ended, or hung:\n" + "".join(self._printed[-60:]))

    def do(self, **command: object) -> Any:
        """Send a command, and return what came of it.

        Raises:
            AssertionError: it ended with an exception.
        """
        self.tell(**command)
        answer = self.hear()
        assert "error" not in answer, f"{command}: {answer['error']}"
        return answer["ok"]

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._process.kill()
        self._process.communicate()


class Processes:
    """Both processes of a walk, which are kept from one walk to the next where all went well."""

    def __init__(self, setting: Setting, folder: Path, planted: Mapping[str, str]) -> None:
        self.setting = setting
        self._project = project(setting, folder).with_paths({**FILES, **planted})
        self._run: Child | None = None
        self._other: Child | None = None
        self._is_at = ""  # the URL at which the other process is
        self.items: list[str] = []

    @property
    def run(self) -> Child:
        """The run of pytest, at a pause between tests when it is new."""
        if self._run is None:
            plugins = [word for name in self.setting.plugins for word in ("-p", name)]
            run = Child(self._project.start("-s", "-q", *plugins, env=self.setting.env))
            self.items = run.hear()["items"]
            self._give_arena(run)
            self._run = run
        return self._run

    def _give_arena(self, run: Child) -> None:
        """Run the test that keeps the fixture, to be asked for the URL from there on."""
        asking = next(item for item in self.items if item.endswith("::test_arena"))
        self.items.remove(asking)
        run.tell(do="run", item=asking, next="")
        run.hear()
        run.tell(do="go")
        run.hear()

    @property
    def other(self) -> Child:
        """A process that is given the URL of the test's database, as it is now."""
        if self._other is None:
            self._other = Child(self._project.start_python("other.py"))
            self._other.hear()
            self._is_at = ""
        if not self._is_at:
            self._is_at = str(self.run.do(do="url"))
            self._other.do(do="go_to", hand="other", values=[self._is_at])
        return self._other

    def new_level(self) -> None:
        """The test's database may be another one from here on."""
        if not product_of(self.setting).keeps_url:
            self._is_at = ""

    def kill_run(self) -> None:
        """Kill the run, and the other process, whose database goes with it."""
        if self._run is not None:
            self._run.kill()
            self._run = None
        self.kill_other()

    def kill_other(self) -> None:
        """Kill the other process."""
        if self._other is not None:
            self._other.kill()
            self._other = None
