"""`arena init`: its options and its output."""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli._lines import ask, say
from pytest_arena._cli.init._guarded import REDIRECT, filled_lines, guarded, run_python
from pytest_arena._cli.init._look import Project, parse_project
from pytest_arena._cli.init._proposal import Proposal, chosen_app, proposed, schemas
from pytest_arena._config._project import pytest_file
from pytest_arena._values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._cli.init._guarded import Facts

    # Starts a guarded run with a question and arguments of pytest.
    Probe = Callable[[Facts, list[str]], Facts]

_FAILED = 1
_FEW = 4
# The kinds of definitions to show, in this order.
_KINDS = (
    *("app", "factory", "unfit", "tables"),
    *("test_tables", "engine", "variable", "fixture"),
)
_REDIRECTED = "--arena-drivers=redirect"


def init(app: str, *, is_agreed: bool, seconds: float) -> int:
    """Write the configuration and a first test of the project in this folder.

    Return the exit status. It is 1 if the user does not agree, or if the import of the app or the
    first test fails.

    Raises:
        ConfigError: there is no app, there are several apps, or a file cannot be changed.
    """
    here = Path.cwd()
    configured, settings = pytest_file()
    project = parse_project(here)
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
    files = counted(project.files, "file")
    say(f"Read {files} below {here}, and imported none:")
    say(*_definition_lines(project))
    chosen = chosen_app(project, app or named)
    facts: Facts = {"bases": [], "engines": [], "routes": []}
    plan = Proposal(project, ini, settings, chosen, facts)
    probe = partial(guarded, project.folder, seconds=seconds)
    if plan.app:
        _import_app(plan, probe)
    else:
        _import_tables(plan, probe)
    edits = proposed(plan)
    if plan.doubts:
        say("", "Not sure:")
        for line in "\n".join(plan.doubts).splitlines():
            say(f"  {line}")
    diff = [line for edit in edits for line in edit.diff(here)]
    say("", "".join(diff))
    is_broken = not plan.facts.keys().isdisjoint({"error", "problem"})
    if not edits:
        say("There is nothing to write.")
        return _FAILED if is_broken else 0
    if not ask(
        "Write this?",
        is_agreed=is_agreed,
        refusal="nothing is written",
        command="arena init --yes",
    ):
        return _FAILED
    write_all(edits)
    names = [os.path.relpath(edit.path, here) for edit in edits]
    say(f"written: {', '.join(names)}")
    if is_broken:
        say("next: repair the import of the app, then: arena init")
        return _FAILED
    return _run_first_test(here, edits)


def _row(title: str, text: object) -> str:
    return f"  {title:<14}{text}"


def _definition_lines(project: Project) -> Iterator[str]:
    """Yield lines about the first definitions of each kind, and about scripts."""
    for kind in _KINDS:
        title = kind.removeprefix("test_")
        definitions = project.all(kind)
        for definition in definitions[:_FEW]:
            text = definition.name
            if definition.detail:
                text += f" ({definition.detail})"
            yield _row(title, f"{text}   {definition.place}")
        more = len(definitions) - _FEW
        if more > 0:
            yield _row("", f"and {more} more")
    files = [("migrations", path) for path in project.migrations]
    files += [("script", path) for path in project.scripts[:_FEW]]
    for title, path in files:
        name = path.relative_to(project.folder)
        yield _row(title, name.as_posix())
    if project.is_library:
        yield _row("no app", "only arena_schema is proposed, as for a library")
    for place in project.unread:
        yield _row("not parsed", place)


def _import_app(plan: Proposal, probe: Probe) -> None:
    """Import the app in a guarded run, then build its tables and send requests."""
    say("", "Importing the app. pytest-arena refuses connections to your databases.")
    words = _pytest_arguments(plan)
    words.append(f"--arena-app={plan.app}")
    module = plan.app.partition(":")[0]
    bases = [tables.name for tables in plan.project.all("tables")]
    server = plan.project.may_use_server
    question = {"app": plan.app, "module": module, "bases": bases, "server": server}
    plan.note_facts(probe(question, [*words, "--arena-schema="]))
    doubt = "the app could not be imported"
    if "problem" in plan.facts:
        plan.doubt(
            "pytest could not start with your conftest.py:", plan.facts["problem"]
        )
        words.append("--noconftest")
        doubt = f"without your conftest.py, {doubt} either"
        plan.note_facts(probe(question, [*words, "--arena-schema="]))
    problem = plan.facts.get("error") or plan.facts.get("problem")
    if problem:
        plan.doubt(f"{doubt}, so no test is written:", problem)
        plan.choose_schema(next(schemas(plan)))
        return
    say(*_imported_lines(plan.facts))
    _doubt_app_without_database(plan)
    for schema in schemas(plan):
        question["schema"] = schema
        option = f"--arena-schema={schema}"
        facts = _try_schema(plan, probe, question, [*words, option])
        if _accept_schema(plan, schema, facts):
            break


def _doubt_app_without_database(plan: Proposal) -> None:
    """Name the factories that need arguments if the chosen app has no database."""
    factories = plan.project.all("unfit")
    if plan.facts["engines"] or not factories:
        return
    lines = [
        f"{factory.place}  {factory.name}: {factory.detail}" for factory in factories
    ]
    _, _, function = factories[0].name.rpartition(":")
    lines.append(
        f"to test it, write a function without arguments that returns {function}(…), "
        "then: arena init --app module:that_function"
    )
    plan.doubt(f"{plan.app} has no database. Perhaps another app has it:", lines)


def _imported_lines(facts: Facts) -> Iterator[str]:
    """Yield a line for each database and for each base of tables."""
    for name, dialect, driver, _ in facts["engines"]:
        yield _row("database", f"{name} ({dialect}+{driver})")
    for name, tables in facts["bases"]:
        names = ", ".join(tables[:_FEW])
        if len(tables) > _FEW:
            names += ", …"
        yield _row("tables", f"{name}: {names}")


def _pytest_arguments(plan: Proposal) -> list[str]:
    """Return the folder of the tests, and an option with the folders to import from."""
    tests = plan.tests
    if not tests.is_dir():
        tests = plan.project.folder
    folders = [*plan.folders("pythonpath"), plan.root]
    quoted = [f'"{folder.as_posix()}"' for folder in folders]
    return [str(tests), f"--override-ini=pythonpath={' '.join(quoted)}"]


def _try_schema(
    plan: Proposal, probe: Probe, question: Facts, words: list[str]
) -> Facts:
    """Build the tables and send requests. Redirect drivers if the guard refuses a driver."""
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
    plan.redirect_drivers()
    return redirected


def _import_tables(plan: Proposal, probe: Probe) -> None:
    """Import the module that defines the tables of a library, in a guarded run."""
    say("", "Importing the tables. pytest-arena refuses connections to your databases.")
    for schema in schemas(plan):
        plan.choose_schema(schema)
        module, is_attribute, _ = schema.partition(":")
        if not is_attribute:  # a file: alembic.ini, or a script
            module = ""
        words = _pytest_arguments(plan)
        words.append(f"--arena-schema={schema}")
        server = plan.project.may_use_server
        facts = probe({"app": "", "module": module, "server": server}, words)
        problem = facts.get("error") or facts.get("problem")
        if not problem:
            plan.note_facts(facts)
            return
        plan.doubt(f"arena_schema = {schema}:", problem)


def _accept_schema(plan: Proposal, schema: str, facts: Facts) -> bool:
    """Choose a schema. Return False if its build failed and another schema may work."""
    failure = facts.get("unbuilt") or facts.get("error")
    problem = failure or facts.get("problem")
    if problem:
        plan.doubt(f"arena_schema = {schema}:", problem)
    if failure and not facts.get("server"):
        return False
    if "fixture" in facts:
        plan.doubt("a fixture of your suite fails in each test:", facts["fixture"])
    plan.choose_schema(schema)
    for answer in facts["routes"]:
        line = f"  GET {answer.path} → {answer.status or answer.problem}"
        if answer.uses_database:
            line += ", from the database"
        say(line)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            steps = "look into the app's log"
            if not plan.schema:
                steps = f"set arena_schema, so that the tables exist, or {steps}"
            plan.doubt(
                f"GET {answer.path} answers {answer.status}, so no test is written for it:",
                [steps],
            )
        elif answer.status:
            plan.answers.append(answer)
    return True


def _run_first_test(here: Path, edits: list[FileChange]) -> int:
    """Run the new test. Return 1 if it fails, or 0 without a new test."""
    for edit in edits:
        test = edit.path
        if test.suffix != ".py":
            continue
        status, output = run_python(here, "-m", "pytest", "--no-header", str(test))
        lines = filled_lines(output)
        outcome = "".join(lines[-1:]).strip("= ")
        if status:
            problem = "fails"
            if outcome.startswith("1 passed"):
                problem = "passes, but the run fails"
            say(*lines, f"The first test {problem}. next: pytest {test}")
            return _FAILED
        say(f"{test.name}: {outcome}")
    say("next: pytest, then arena init --check")
    return 0
