"""Collects the facts of the summary from this process and its workers."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from pytest_arena._databases._builders import suggested_schema
from pytest_arena._gate._engines import requested_by_url
from pytest_arena._ledger import Ledger, TestFacts
from pytest_arena._report import Summary, kept_notes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._config._read import Config
    from pytest_arena._databases._resolver import Databases


def summarize(config: Config, databases: Databases, ledger: Ledger) -> Summary:
    """Return the facts of this process. Mark refusals outside of tests as reported."""
    refused = ledger.unreported("")
    ledger.mark_reported(*refused)
    known = databases.known
    of_engines = [*known.by_key.values()]
    # The names of the databases that engines have requested.
    requested = {*chain(*known.ended.values(), *(each.tails for each in of_engines))}
    used = databases.provisioned()
    stores = databases.provision.stores.values()
    named = dict.fromkeys([*config.schema, *config.seed])
    suggestion = ""
    if ledger.filled:
        suggestion = schema_to_set(config)
    return Summary(
        tests=tuple(ledger.tests),
        databases=tuple(database.name for database in used),
        notes=(*kept_notes(ledger.kept), *_unread(databases)),
        noted=tuple(ledger.noted),
        failures=tuple(databases.provision.differences),
        has_template=bool(named),
        known=tuple(database.name for database in of_engines),
        in_memory=known.in_memory,
        unasked=tuple(name for name in named if name and name not in requested),
        suggestion=suggestion,
        spoiled=tuple(databases.files.changed()),
        refusals=tuple(dict.fromkeys(str(error) for error in refused)),
        template_words=databases.provision.template_words(),
        kept_seconds=sum(store.kept_seconds for store in stores),
        run_seconds=sum(store.run_seconds for store in stores),
        products=tuple(dict.fromkeys(product for product, _ in ledger.filled)),
        verified=ledger.verified,
        verified_seconds=ledger.verified_seconds,
        isolations=tuple(dict.fromkeys(isolation for _, isolation in ledger.filled)),
    )


def schema_to_set(config: Config) -> str:
    """Return the line of ``arena_schema`` that would create the tables, "" if unknown."""
    schema = "" if config.schema else suggested_schema(config.root)
    return config.schema_line(schema) if schema else ""


def _unread(databases: Databases) -> Iterator[str]:
    """Yield a line for each variable that names a database without an engine of the app."""
    known = databases.known
    first = known.primary
    used = databases.provisioned()
    others = [database.name for database in used if not database.is_only_named]
    if first is None or not first.is_only_named or not others:
        return
    if not (databases.config.schema or first.isolation):
        return  # no option and no connection uses that database
    for variable, url in databases.environment.originals().items():
        requested = requested_by_url(url)
        if requested is not None and known.find(requested) is first:
            yield (
                f"{variable} names the database {first.name!r}, but the app's engines use "
                f"{', '.join(others)}. arena_schema and db_session use the named database. "
                f"Unset {variable}, or: arena_env = <the variable that the app reads>, {variable}"
            )


# Keys in the report that a worker sends to pytest-xdist.
_MISTAKE = "arena_mistake"
_SUMMARY = "arena"


class FactsOfProcesses:
    """The facts of this process and its workers. A worker sends them at its end.

    A worker that crashes sends none.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        # pytest-xdist sends this from a worker to the controller. None in any other process.
        self._output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        self.mistake = ""
        self.summary: Summary | None = None

    def send_mistake(self, mistake: str) -> bool:
        """Send a mistake of configuration to the controller. Return False if this is no worker."""
        if self._output is None:
            return False
        self._output[_MISTAKE] = mistake
        return True

    def end(self, summary: Summary) -> None:
        """Add the summary of this process after its tests, or send it to the controller."""
        if self._output is not None:
            tests = [tuple(facts) for facts in summary.tests]
            values = asdict(replace(summary, tests=()))
            self._output[_SUMMARY] = {**values, "tests": tests}
        if self._config.pluginmanager.has_plugin("dsession"):
            # A controller runs no test itself, so it knows no engines.
            unasked = self.summary.unasked if self.summary else ()
            summary = replace(summary, unasked=unasked)
        self.summary = summary + self.summary if self.summary else summary

    def add_worker(self, output: Mapping[str, Any]) -> None:
        """Add the facts that a worker has sent at its end."""
        self.mistake = output.get(_MISTAKE, self.mistake)
        values = output.get(_SUMMARY)
        if values is not None:
            tests = tuple(TestFacts(*facts) for facts in values["tests"])
            summary = Summary(**{**values, "tests": tests})
            self.summary = self.summary + summary if self.summary else summary
