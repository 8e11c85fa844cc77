"""`arena init`: finds the app, shows the proposed configuration, and writes it after a yes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli._lines import agreed, counted, say
from pytest_arena._cli.init._guarded import REDIRECT, guarded, run_python
from pytest_arena._cli.init._look import Project, look_at
from pytest_arena._cli.init._proposal import Proposal, chosen_app, proposed, schemas
from pytest_arena._config._project import pytest_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._cli.init._guarded import Facts

    Probe = Callable[[Facts, list[str]], Facts]

_FAILED = 1
_FEW = 4
_KINDS = (
    "app",
    "factory",
    "unfit",
    "tables",
    "test_tables",
    "engine",
    "variable",
    "fixture",
)
_REDIRECTED = "--arena-drivers=redirect"


def init(app: str, *, is_agreed: bool, seconds: float) -> int:
    """Write the configuration and a first test of the project in this folder.

    Returns the exit status: 1 if the user does not agree, or the first test fails.

    Raises:
        ConfigError: there is no app, there are several apps, or a file cannot be changed.
    """
    here = Path.cwd()
    configured, settings = pytest_file()
    project = look_at(here)
    named = str(settings.get("arena_app") or "")
    test = project.first_test
    if project.is_library and "arena_schema" in settings:
        schema = settings["arena_schema"]
        say(f"nothing to do: arena_schema = {schema} in {configured}")
        return 0
    if named and test:
        say(
            f"nothing to do: arena_app = {named} in {configured}, a test in {test.place}"
        )
        return 0
    ini = configured or next(here.glob("pyproject.toml"), here / "pytest.ini")
    say(f"Read {counted(project.files, 'file')} below {here}, and imported none:")
    say(*_shown(project))
    plan = Proposal(project, ini, settings, chosen_app(project, app or named))
    probe = partial(guarded, project.folder, seconds=seconds)
    if plan.app:
        _learn(plan, probe)
    else:
        _learn_of_library(plan, probe)
    edits = proposed(plan)
    if plan.doubts:
        say("", "Not sure:")
        for line in "\n".join(plan.doubts).splitlines():
            say(f"  {line}")
    diff = [line for edit in edits for line in edit.diff(here)]
    say("", "".join(diff))
    if not edits:
        say("There is nothing to write.")
        return 0
    if not agreed(
        "Write this?",
        already=is_agreed,
        otherwise="nothing is written",
        command="arena init --yes",
    ):
        return _FAILED
    write_all(edits)
    say(f"written: {', '.join(os.path.relpath(edit.path, here) for edit in edits)}")
    return _run_first_test(here, edits)


def _row(title: str, text: object) -> str:
    return f"  {title:<14}{text}"


def _shown(project: Project) -> Iterator[str]:
    for kind in _KINDS:
        definitions = project.all(kind)
        for definition in definitions[:_FEW]:
            detail = f" ({definition.detail})" if definition.detail else ""
            title = kind.removeprefix("test_")
            yield _row(title, f"{definition.name}{detail}   {definition.place}")
        if len(definitions) > _FEW:
            yield _row("", f"and {len(definitions) - _FEW} more")
    for path in project.migrations:
        yield _row("migrations", path.relative_to(project.folder).as_posix())
    for path in project.scripts[:_FEW]:
        yield _row("script", path.relative_to(project.folder).as_posix())
    if project.is_library:
        yield _row("no app", "only arena_schema is proposed, as for a library")
    for place in project.unread:
        yield _row("not parsed", place)


def _learn(plan: Proposal, probe: Probe) -> None:
    """Import the app in a guarded run, then build its tables and send requests."""
    say("", "Importing the app. pytest-arena refuses connections to your databases.")
    words = [*_words(plan), f"--arena-app={plan.app}"]
    question = {
        "app": plan.app,
        "module": plan.app.partition(":")[0],
        "bases": [tables.name for tables in plan.project.all("tables")],
    }
    plan.facts = probe(question, [*words, "--arena-schema="])
    if "problem" in plan.facts:
        title = "pytest could not start with your conftest.py:"
        plan.doubt(title, plan.facts["problem"])
        words.append("--noconftest")
        plan.facts = probe(question, [*words, "--arena-schema="])
    problem = plan.facts.get("error") or plan.facts.get("problem")
    if problem:
        plan.doubt("the app could not be imported, so no test is written:", problem)
        plan.schema = next(schemas(plan))
        return
    say(*_learned(plan.facts))
    for schema in schemas(plan):
        question["schema"] = schema
        facts = _tried(plan, probe, question, [*words, f"--arena-schema={schema}"])
        if _is_settled(plan, schema, facts):
            break


def _learned(facts: Facts) -> Iterator[str]:
    """Yield a line for each database and for each base of tables."""
    for name, dialect, driver, _ in facts["engines"]:
        yield _row("database", f"{name} ({dialect}+{driver})")
    for name, tables in facts["bases"]:
        names = ", ".join(tables[:_FEW])
        if len(tables) > _FEW:
            names += ", …"
        yield _row("tables", f"{name}: {names}")


def _words(plan: Proposal) -> list[str]:
    """Return the arguments of pytest: the folder of the tests, and the folders to import from."""
    tests = plan.tests if plan.tests.is_dir() else plan.project.folder
    folders = [*plan.folders("pythonpath"), plan.root]
    paths = " ".join(f'"{folder.as_posix()}"' for folder in folders)
    return [str(tests), f"--override-ini=pythonpath={paths}"]


def _tried(plan: Proposal, probe: Probe, question: Facts, words: list[str]) -> Facts:
    """Build the tables and send requests. Redirect drivers if one is refused."""
    if plan.redirects:
        return probe(question, [*words, _REDIRECTED])
    facts = probe(question, words)
    problems = facts.get("unbuilt") or facts.get("error") or []
    is_refused = facts.get("redirect") or REDIRECT in "\n".join(problems)
    if not is_refused or "arena_drivers" in plan.settings:
        return facts
    redirected = probe(question, [*words, _REDIRECTED])
    if redirected.keys() & {"unbuilt", "error", "problem"}:
        return facts
    plan.redirects = True
    return redirected


def _learn_of_library(plan: Proposal, probe: Probe) -> None:
    """Import the module that defines the tables of a library, in a guarded run."""
    say("", "Importing the tables. pytest-arena refuses connections to your databases.")
    for schema in schemas(plan):
        plan.schema = schema
        module, is_attribute, _ = schema.partition(":")
        question = {"app": "", "module": module if is_attribute else ""}
        facts = probe(question, [*_words(plan), f"--arena-schema={schema}"])
        problem = facts.get("error") or facts.get("problem")
        if not problem:
            plan.facts = facts
            return
        plan.doubt(f"arena_schema = {schema}:", problem)


def _is_settled(plan: Proposal, schema: str, facts: Facts) -> bool:
    """Choose a schema. Return False if its tables could not be built and another may work."""
    failure = facts.get("unbuilt") or facts.get("error")
    problem = failure or facts.get("problem")
    if problem:
        plan.doubt(f"arena_schema = {schema}:", problem)
    if failure and not facts.get("server"):
        return False
    if "fixture" in facts:
        plan.doubt("a fixture of your suite fails in each test:", facts["fixture"])
    plan.schema = schema
    for answer in facts["routes"]:
        path, status, uses_database, reason = answer
        source = ", from the database" if uses_database else ""
        say(f"  GET {path} → {status or reason}{source}")
        if status:
            plan.answers.append(answer)
    return True


def _run_first_test(here: Path, edits: list[FileChange]) -> int:
    for edit in edits:
        if edit.path.suffix != ".py":
            continue
        test = edit.path
        status, output = run_python(here, "-m", "pytest", "--no-header", str(test))
        lines = [line for line in output.splitlines() if line.strip()]
        if status:
            say(*lines, f"The first test fails. next: pytest {test}")
            return _FAILED
        say(f"{test.name}: {lines[-1].strip('= ')}")
    say("next: pytest, then arena init --check")
    return 0
