"""`arena init --check`: the suite with the plugin and without it, and what differs."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from pytest_arena._cli._lines import agreed, say
from pytest_arena._cli.init._guarded import run_python
from pytest_arena._cli.init._look import FIXTURES, likely_schema, look_at
from pytest_arena._cli.init._outcomes import FILE, MEANT
from pytest_arena.errors import redact

Outcomes = dict[str, tuple[str, str]]

_FAILED = 1
_FEW = 5  # differences that are told in full: those of one suite have few causes
_GONE = ("gone", "it was not collected, or its file does not import")
_ENDED = (0, 1)  # pytest's own exit statuses: the suite has run
_OURS = re.compile(
    rf"fixture '({'|'.join((*FIXTURES, 'make', 'scenario'))})' not found"
)
# What a failure with the plugin says; why that is, and what to do.
_SCHEMA = "alembic.ini   or module:Base: what makes them"
_CAUSES = {
    r"no such table|relation .* does not exist": "its tables were made before the run, elsewhere\n"
    f"arena_schema = {_SCHEMA}",
    r"(table|relation) .* already exists": "a fixture makes tables that arena_schema has made\n"
    "delete that fixture, or leave arena_schema out",
    r"UNIQUE constraint|UniqueViolation|duplicate key": "arena_seed, or a wider fixture, has made "
    "the row\nfind it in place of adding it",
    r"lock timeout|database is locked": "it waits for a row that the test has not committed\n"
    "commit before the request, or a longer arena_lock_timeout",
    "": "it relied on rows that another test or run had left, or on a session shared with the app\n"
    "make its rows in a fixture or in arena_seed; read anew what the app has changed",
}


def check(*, is_agreed: bool) -> int:
    """Run the suite twice, and tell. Returns 1 where a test passes without the plugin alone."""
    say("The suite runs twice: with the plugin, and without it (-p no:arena).")
    if (ran := _run("with the plugin:")) is None:
        return _FAILED
    after, meant = ran
    say(
        "The second goes wherever the tests lead by themselves, and may change its databases:",
        *(f"  {one}" for one in [*meant, *([] if meant else _written())]),
    )
    command = "arena init --check --yes"
    question = "Run it without the plugin?"
    if not agreed(
        question, otherwise="it is not run", command=command, already=is_agreed
    ):
        return _FAILED
    ran = _run("without it:     ", "-p", "no:arena")
    return _FAILED if ran is None else _told(after, ran[0])


def _written() -> list[str]:
    """What the code says, where no test has asked for a database."""
    return [
        f"{one.name}   {one.place}" for one in look_at(Path.cwd()).all("engine")[:_FEW]
    ]


def _run(shown: str, *words: str) -> tuple[Outcomes, list[str]] | None:
    """Run the suite and say how it went; return that, and what its engines meant."""
    began = time.monotonic()
    outcomes, meant, status, output = _pytest(Path.cwd(), *words)
    seconds = time.monotonic() - began
    counts = Counter(outcome for outcome, _ in outcomes.values())
    told = ", ".join(f"{counts[name]} {name}" for name in sorted(counts, reverse=True))
    say(f"{shown} {told or 'no tests'} in {seconds:.1f} s")
    if status in _ENDED:
        return outcomes, meant
    say(*output.splitlines()[-20:], f"pytest ended with {status}: nothing to compare")
    return None


def _pytest(folder: Path, *words: str) -> tuple[Outcomes, list[str], int, str]:
    with tempfile.TemporaryDirectory(prefix="arena-init-") as temporary:
        file = Path(temporary, "outcomes")
        words = ("-m", "pytest", "-q", "--override-ini=required_plugins=", *words)
        plugin = ("-p", "pytest_arena._cli.init._outcomes")
        status, output = run_python(folder, *words, *plugin, env={FILE: str(file)})
        outcomes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        told = [
            one.read_text(encoding="utf-8") for one in file.parent.glob(f"{MEANT}*")
        ]
    return outcomes, sorted({*"\n".join(told).splitlines()} - {""}), status, output


def _told(after: Outcomes, before: Outcomes) -> int:
    bad = _bad(after)
    was_bad = _bad(before)
    ours = {name for name in was_bad if _OURS.search(before[name][1])}
    if ours:
        say(
            f"tests with fixtures of the plugin, which cannot run without it: {len(ours)}"
        )
    for name in sorted(was_bad - bad - ours):
        say(
            f"passes with the plugin alone: {name}",
            f"  without: {_last(before[name][1])}",
        )
    for name in sorted(was_bad & bad):
        how = "fails with the plugin" if name in ours else "fails either way"
        say(f"{how}: {name}", f"  {_last(after[name][1])}")
    worse = sorted((bad - was_bad) | (before.keys() - after.keys()))
    for name in worse[:_FEW]:
        told = after.get(name, _GONE)[1]
        why, _, fix = _why(told).partition("\n")
        say(f"passes without the plugin alone: {name}", f"  with: {_last(told)}")
        say(f"  why:  {why}", f"  next: {fix}")
    more = len(worse) - _FEW
    say(
        *[f"and {more} more pass without the plugin alone; mend these first"]
        * (more > 0)
    )
    say(*["same passes: no test passes without the plugin alone"] * (not worse))
    return _FAILED if worse else 0


def _bad(outcomes: Outcomes) -> set[str]:
    return {
        name
        for name, (outcome, _) in outcomes.items()
        if outcome in {"failed", "error"}
    }


def _last(told: str) -> str:
    """The line of a failure that says what is wrong."""
    lines = [
        line for line in told.splitlines() if line.startswith("E  ")
    ] or told.splitlines()
    return redact(" ".join(lines[:1]).removeprefix("E").strip())


def _why(told: str) -> str:
    """Say why a test fails with the plugin, and what to do, by what it says."""
    parts = dict(re.findall(r"^(?:E\s+)?\s*(why|next):\s+(.*)$", told, re.MULTILINE))
    if re.search(r"\[A\d{3}\]", told) and len(parts) > 1:
        return f"{parts['why']}\n{parts['next']}"
    cause = next(_CAUSES[words] for words in _CAUSES if re.search(words, told))
    schema = likely_schema(look_at(Path.cwd())) if _SCHEMA in cause else ""
    return cause.replace(_SCHEMA, schema or _SCHEMA)
