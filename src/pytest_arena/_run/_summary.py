"""What does a run have to say at its end, with its other processes?"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from pytest_arena._databases._builders import candidates, suggested_schema
from pytest_arena._gate._engines import requested_by_engine, requested_by_url
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._ledger import Ledger, TestFacts
from pytest_arena._report import Summary, kept_notes
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._config._read import Config
    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._databases._migrations import Comparison
    from pytest_arena._databases._resolver import Databases
    from pytest_arena._product import Database


def summarized(config: Config, databases: Databases, ledger: Ledger) -> Summary:
    """Return the facts of this process. What was refused outside of any test is told by that."""
    refused = ledger.unreported("")
    ledger.mark_reported(*refused)
    meant = [
        one for one in databases.known.by_key.values() if one.key.kind != "expected"
    ]
    asked = {tail for one in meant for tail in one.tails}
    used = databases.provisioned()
    stores = databases.provision.stores.values()
    named = dict.fromkeys([*config.schema, *config.seed])
    migration_notes = tuple(_migration_lines(config, databases))
    migration_failures: tuple[str, ...] = ()
    if config.migrations == "fail":
        migration_failures = tuple(
            f"{line} (arena_migrations = fail)" for line in migration_notes
        )
        migration_notes = ()
    return Summary(
        tests=tuple(ledger.tests),
        databases=tuple(database.name for database in used),
        notes=(
            *ledger.noted_lines(),
            *kept_notes(ledger.kept),
            *_unread(databases),
            *migration_notes,
        ),
        failures=migration_failures,
        has_template=bool(config.schema or config.seed),
        built_because=tuple(
            reason for store in stores for reason in store.reasons if reason
        ),
        table_seconds=tuple(ledger.table_seconds.values()) if not config.schema else (),
        known=tuple(one.name for one in meant),
        in_memory=databases.known.in_memory,
        unasked=tuple(name for name in named if name and name not in asked),
        unused=_unused(config, [*meant, *used], databases.known)
        if ledger.filled
        else (),
        suggestion=suggested_schema(config.root)
        if ledger.filled and not config.schema
        else "",
        spoiled=tuple(databases.files.changed()),
        refusals=tuple(dict.fromkeys(str(error) for error in refused)),
        built_seconds=sum(store.built_seconds for store in stores),
        products=tuple(dict.fromkeys(product for product, _ in ledger.filled)),
        verified=ledger.verified,
        verified_seconds=ledger.verified_seconds,
        isolations=tuple(dict.fromkeys(isolation for _, isolation in ledger.filled)),
    )


_MOST_DIFFERENCES = 3  # in one line of the summary


def _migration_lines(config: Config, databases: Databases) -> Iterator[str]:
    """Yield how migrations differ from the models, or why they were not compared."""
    has_models = any(True for _ in candidates())
    for schema, comparison in databases.provision.comparisons():
        if comparison.differences:
            yield _difference_line(schema, comparison)
        # A project without models has nothing that migrations could differ from.
        elif has_models or config.migrations == "fail":
            line = f"{schema}: the migrations were not compared with the models: "
            line += comparison.failure
            if config.migrations != "fail":
                line += " (arena_migrations = off compares nothing)"
            yield line


def _difference_line(schema: str, comparison: Comparison) -> str:
    differences = comparison.differences
    shown = "; ".join(differences[:_MOST_DIFFERENCES])
    if len(differences) > _MOST_DIFFERENCES:
        shown = f"{shown}; {len(differences) - _MOST_DIFFERENCES} more"
    return (
        f"{schema}: the migrations do not build what the models say ({shown}). "
        f"`arena doctor --migrations` lists all. {comparison.next_step(schema)}"
    )


def _unread(databases: Databases) -> Iterator[str]:
    """That a variable has named the app's first database, and no engine of the app's is on it."""
    known = databases.known
    first = databases.known.primary
    others = [one.name for one in databases.provisioned() if not one.is_only_named]
    if first is None or not first.is_only_named or not others:
        return
    if not (databases.config.schema or first.isolation):  # nothing was for it
        return
    for variable, url in databases.environment.originals().items():
        asked = requested_by_url(url) if url is not None else None
        if asked is not None and known.find(asked) is first:
            yield (
                f"{variable} names the database {first.name!r}, on which the app has no engine "
                f"(it is on {', '.join(others)}): arena_schema and db_session are for the one that "
                "is named. Unset it, or: arena_env = the variable that the app reads"
            )


def _unused(
    config: Config, found: list[Database], known: KnownDatabases
) -> tuple[str, ...]:
    """That a server was asked for, and the app's engines are all on SQLite."""
    products = {one.product.name for one in found}
    if config.database in {"auto", "sqlite"} or products - {"sqlite"}:
        return ()
    live = {one.file for one in found}
    shown = [
        str(engine.url)
        for engine in known_engines.find()
        if (one := requested_by_engine(engine)) and known.is_the_apps(one)
        if engine.url.database not in live
    ]
    names = dict.fromkeys(shown or [one.name for one in found[:1]] or ["in memory"])
    asked = config.database
    there = ", ".join(names)
    told = (
        f"arena_database = {asked} was not used: the app's engine is SQLite ({there})"
    )
    return (redact(told),)


# Keys in the report that a worker sends to pytest-xdist.
_MISTAKE = "arena_mistake"
_SUMMARY = "arena"


class FactsOfProcesses:
    """The facts of this process, its forks and its workers; in a worker: the way to the controller.

    The facts of each test travel with its last report. A worker that dies has sent them by then,
    and a fork has no other way.
    """

    def __init__(self, config: Any, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._next = (
            0  # the first one that no report was given: a skipped test has no facts
        )
        self._sent: set[int] = set()
        # What pytest-xdist hands from a worker to the controller; None in any other process.
        self._output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        is_shared = self._output is not None or config.getoption("dist", "no") != "no"
        self.travel = is_shared or config.pluginmanager.has_plugin("pytest_forked")
        self.mistake = ""
        self.summary: Summary | None = None

    def attach(self, report: Any) -> None:
        """Have the facts of the test that was settled last travel with its last report."""
        number = len(self._ledger.tests) - 1
        if number >= self._next:
            self._next = number + 1
            facts = self._ledger.tests[number]._asdict()
            report.arena_facts = {
                "process": os.getpid(),
                "number": number,
                "facts": facts,
            }

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has ended, in this process or another."""
        sent = getattr(report, "arena_facts", None)
        if sent is None:
            return
        if sent["process"] == os.getpid():
            self._sent.add(sent["number"])
        else:
            self._ledger.tests.append(TestFacts(**sent["facts"]))

    def hands_on(self, mistake: str) -> bool:
        """Whether a mistake of configuration goes to a controller, which says it once for all."""
        if self._output is None:
            return False
        self._output[_MISTAKE] = mistake
        return True

    def end(self, summary: Summary) -> None:
        """This process has ended its tests: add its summary, or send it to the controller."""
        if self._output is not None:
            tests = [facts._asdict() for facts in self._unsent()]
            self._output[_SUMMARY] = {
                **asdict(replace(summary, tests=())),
                "tests": tests,
            }
        if self._config.pluginmanager.has_plugin(
            "dsession"
        ):  # a controller runs no test itself
            summary = replace(
                summary, unasked=self.summary.unasked if self.summary else ()
            )
        self.summary = summary + self.summary if self.summary else summary

    def _unsent(self) -> tuple[TestFacts, ...]:
        """The facts that no report has carried: of attempts that were made again."""
        tests = enumerate(self._ledger.tests)
        return tuple(facts for number, facts in tests if number not in self._sent)

    def take_over(self, output: Mapping[str, Any]) -> None:
        """A worker has ended: add what it has handed on."""
        self.mistake = output.get(_MISTAKE, self.mistake)
        if (values := output.get(_SUMMARY)) is not None:
            tests = tuple(TestFacts(**facts) for facts in values["tests"])
            summary = Summary(**{**values, "tests": tests})
            self.summary = self.summary + summary if self.summary else summary
