"""How did each try of a test end, by what its process tells in its reports?"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from pytest_arena._config._load import is_library
from pytest_arena.errors import NotWritten, redact
from pytest_arena.scenarios.evidence._document import (
    Facts,
    Outcome,
    Sabotage,
    Try,
    from_shape,
    to_shape,
)
from pytest_arena.scenarios.specs._reader import relative

SENT = "arena_scenario"
"""The attribute of a report by which a test's process tells of it: plain values alone."""

_WORST_FIRST: tuple[Outcome, ...] = (
    "failed",
    "xfailed",
    "xpassed",
    "skipped",
    "passed",
)
_PHASES = ("setup", "call", "teardown")


@dataclass(slots=True)
class _Open:
    """A try whose tear-down has not been reported yet."""

    is_rerun: bool = False
    is_set_up: bool = False
    is_called: bool = False
    outcome: Outcome = "passed"
    sent: dict[str, Any] = field(default_factory=dict)
    is_to_be_rerun: bool = False


class Tries:
    """Reports of this process and of others, folded into tries.

    What is no scenario's test passes by at the cost of one look.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Open] = {}
        self._last: dict[tuple[str, str], _Open] = {}
        self._to_be_rerun: set[str] = set()  # elsewhere: their process has died
        self._ended: dict[str, list[Try]] = {}
        self.sabotaged: dict[str, tuple[Sabotage, ...]] = {}  # by test
        self._kept: dict[
            object, Facts
        ] = {}  # of this process, until their report is seen
        self._numbers = count(1)

    def keep(self, facts: Facts) -> int:
        """Keep the facts of a try of this process. Returns what its report is to call them."""
        number = next(self._numbers)
        self._kept[number] = facts
        return number

    def see(self, report: Any) -> None:
        """A phase of a test, or a subtest, was reported."""
        sent = getattr(report, SENT, None)
        if report.when not in _PHASES:
            self._broken_off(_key_of(report), report)
        elif sent is not None:
            key = _key_of(report)
            one = self._open.get(key)
            # Who reports a whole try at its end comes after its subtests, which report themselves.
            if one is None or (report.when == "setup" and one.is_set_up):
                one = self._open[key] = self._begun(key, sent)
            _fold(one, report, sent)
            if report.when == "teardown":
                self._end(key)

    def _begun(self, key: tuple[str, str], sent: Mapping[str, Any]) -> _Open:
        last = self._last.get(key)
        elsewhere = key[1] in self._to_be_rerun
        # A plugin may try again without a word of it: only the test's own process knows then.
        again = last.is_to_be_rerun if last else bool(sent.get("again"))
        return _Open(is_rerun=again or elsewhere)

    def _end(self, key: tuple[str, str]) -> None:
        done = self._last[key] = self._open.pop(key)
        if done.outcome == "passed" and not done.is_called:
            return  # --setup-only: nothing of the test itself has run
        sent: Any = done.sent.get("facts")
        is_of_another = isinstance(sent, str)
        facts = (
            from_shape(Facts, json.loads(sent))
            if is_of_another
            else self._kept.pop(sent, None)
        )
        self._add(key[1], done, facts=facts)

    def _broken_off(self, key: tuple[str, str], report: Any) -> None:
        """The process of a test has died in the middle of it."""
        died = self._open.pop(key, None) or self._begun(key, {})
        died.outcome, died.sent = (
            "unfinished",
            {"reason": _one_line(str(report.longrepr))},
        )
        if report.outcome == "rerun":
            self._to_be_rerun.add(key[1])
        self._add(key[1], died)

    def _add(self, test: str, done: _Open, *, facts: Facts | None = None) -> None:
        why = {name: done.sent[name] for name in _OF_THE_WORST & done.sent.keys()}
        one = Try(
            test=test, outcome=done.outcome, facts=facts, is_rerun=done.is_rerun, **why
        )
        self._ended.setdefault(test, []).append(one)

    def last(self, test: str) -> Try | None:
        """Return the try of a test that has ended last."""
        return self._ended[test][-1] if test in self._ended else None

    def add_sabotages(self, test: str, sabotages: tuple[Sabotage, ...]) -> None:
        """The try of a test that has ended last was made again, with something broken."""
        self.sabotaged[test] = self.sabotaged.get(test, ()) + sabotages
        if tries := self._ended.get(test):
            tries[-1] = replace(tries[-1], sabotages=tries[-1].sabotages + sabotages)

    def all(self, names: Mapping[str, str]) -> Iterator[Try]:
        """Every try, by the names that tests had at collection; those without one stay away."""
        for test in sorted(self._ended):
            for one in self._ended[test] if test in names else ():
                yield replace(one, test=names[test])


def _key_of(report: Any) -> tuple[str, str]:
    """Its process, and its test."""
    node = getattr(report, "node", None)  # pytest-xdist's, on the controller
    return str(getattr(getattr(node, "gateway", None), "id", "")), report.nodeid


def _fold(one: _Open, report: Any, sent: Mapping[str, Any]) -> None:
    outcome = _outcome(report)
    is_worse = _WORST_FIRST.index(outcome) < _WORST_FIRST.index(one.outcome)
    one.sent |= {key: sent[key] for key in sent if is_worse or key not in _OF_THE_WORST}
    one.outcome = outcome if is_worse else one.outcome
    one.is_to_be_rerun |= report.outcome == "rerun"
    one.is_set_up |= report.when == "setup"
    one.is_called |= report.when == "call"


_OF_THE_WORST = frozenset({"reason", "place", "is_stub"})


def _outcome(report: Any) -> Outcome:
    """An xfail is reported as skipped, and a test that was expected to fail, as passed."""
    if hasattr(report, "wasxfail"):
        return {"skipped": "xfailed", "passed": "xpassed"}.get(report.outcome, "failed")  # type: ignore[return-value]  # all three are outcomes
    return report.outcome if report.outcome in {"passed", "skipped"} else "failed"


_LETTERS = 300
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")  # another one in each run
_PREFIXES = {"setup": "set-up: ", "teardown": "tear-down: "}


def told(
    report: Any, excinfo: Any, item: Any, mask: Callable[[], Callable[[str], str]]
) -> dict[str, Any]:
    """Return why a phase did not pass, in one line, and where; nothing of one that has.

    What ``mask`` returns leaves of its text what may be read.
    """
    if hasattr(report, "wasxfail"):
        return {"reason": _one_line(str(report.wasxfail).removeprefix("reason: "))}
    if report.passed:
        return {}
    if report.skipped:
        return {"reason": _one_line(skip_reason(report.longrepr))}
    root = item.config.rootpath
    if excinfo is None:
        reason = str(report.longrepr)
    elif isinstance(excinfo.value, NotWritten):
        reason = excinfo.value.what  # that it is a stub says its status
    else:
        reason = str(excinfo.exconly(tryshort=True))
    reason = (
        mask()(reason)
        .removeprefix("pytest_arena.errors.")
        .replace(f"{root}{os.sep}", "")
    )
    return {
        "reason": _PREFIXES.get(report.when, "")
        + _one_line(ADDRESS.sub("0x…", reason)),
        "place": _place(excinfo, item.path, root) if excinfo is not None else "",
        "is_stub": excinfo is not None and _is_stub(excinfo, item.path),
    }


def _one_line(text: str) -> str:
    line = next(filter(None, map(str.strip, text.splitlines())), "")
    return redact(line if len(line) <= _LETTERS else f"{line[:_LETTERS]} …")


def skip_reason(longrepr: Any) -> str:
    """Return why something was skipped, as whoever skipped it has said."""
    text = longrepr[2] if isinstance(longrepr, tuple | list) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def _place(excinfo: Any, file: Path, root: Path) -> str:
    """The last line in the test's own file; else the last one of the user's."""
    lines = [(Path(str(one.path)), one.lineno + 1) for one in excinfo.traceback]
    own = [one for one in lines if one[0] == file]
    users = own or [one for one in lines if not is_library(str(one[0]))]
    return f"{relative(users[-1][0], root)}:{users[-1][1]}" if users else ""


def _is_stub(excinfo: Any, file: Path) -> bool:
    if isinstance(excinfo.value, NotWritten):
        return True
    # An app may raise it as well; a test that raises it itself says that it is not written.
    raised_at = Path(str(excinfo.traceback[-1].path)) if excinfo.traceback else None
    return isinstance(excinfo.value, NotImplementedError) and raised_at == file


def evidence_line(facts: Facts) -> str:
    """Return what a test did in one line, for reports that have room for no more."""
    seeded = ", ".join(f"{table} {rows}" for table, rows in facts.seeded or ())
    requests = (
        f"{one.method} {one.route or one.path} {one.status}" for one in facts.requests
    )
    parts = {
        "seeded": "?" if facts.seeded is None else seeded or "-",
        "requested": ", ".join(requests) or "-",
        "asserted": str(sum(one.times for one in facts.checks)),
    }
    off = dict(facts.off)
    return "; ".join(
        f"{name}: {'?' if name in off else text}" for name, text in parts.items()
    )


def plain_facts(facts: Facts) -> str:
    """Return facts as one string: a name in them may be of a type that only looks like one."""
    return json.dumps(to_shape(facts), default=str)
