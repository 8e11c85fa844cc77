"""A process that is asked for times: so that two of them can be measured by turns.

The parent writes `name count` in a line, and reads a list of seconds; `name` alone asks for a fact.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from bench.place import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["Worker", "serve"]


class Worker:
    """The parent's side."""

    def __init__(self, module: str, folder: Path, settings: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment(folder, {"BENCH_FOLDER": str(folder), **settings}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def take(self, name: str, count: int) -> list[float]:
        """Take so many times of one thing."""
        times: list[float] = self._answer(f"{name} {count}")
        return times

    def tell(self, name: str) -> str:
        """Tell a fact."""
        fact: str = self._answer(name)
        return fact

    def _answer(self, question: str) -> Any:
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that was asked for {question} has ended: see above")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()  # its standard input ends, and so does it


def serve(
    takers: Mapping[str, Callable[[int], list[float]]],
    facts: Mapping[str, Callable[[], str]] = MappingProxyType({}),
) -> None:
    """The worker's side: answer until the parent has no more questions."""
    for line in sys.stdin:
        name, *count = line.split()
        answer = takers[name](int(count[0])) if count else facts[name]()
        print(json.dumps(answer), flush=True)
