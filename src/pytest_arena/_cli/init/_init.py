"""`arena init`: looks, says what it found, shows what it would write, and writes after a yes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli._lines import agreed, say
from pytest_arena._cli.init._guarded import REDIRECT, guarded, run_python
from pytest_arena._cli.init._look import Project, look_at
from pytest_arena._cli.init._proposal import Proposal, chosen_app, proposed, schemas
from pytest_arena._config._project import pytest_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.init._guarded import Facts

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
_SHOWN_AS = {"test_tables": "tables"}


def init(app: str, *, is_agreed: bool, seconds: float) -> int:
    """Look at the project of this folder; write its configuration and a first test.

    Returns the exit status: 1 where something is to be written, and nobody has said yes.

    Raises:
        ConfigError: no app, several apps, files that cannot be changed.
    """
    here = Path.cwd()
    found, settings = pytest_file()
    project = look_at(here)
    named = str(settings.get("arena_app") or "")
    if project.is_library and "arena_schema" in settings:
        say(f"all is there: arena_schema = {settings['arena_schema']} in {found}")
        return 0
    if named and (test := project.first_test):
        say(f"all is there: arena_app = {named} in {found}, and a test in {test.place}")
        return 0
    ini = found or next(here.glob("pyproject.toml"), here / "pytest.ini")
    files = f"{project.files} file{'s' * (project.files != 1)}"
    say(f"Looked at {files} below {here}, and imported none:", *_shown(project))
    mode = settings.get("asyncio_mode") or "strict"
    runner = (
        f"pytest-asyncio, mode {mode}"
        if find_spec("pytest_asyncio")
        else "none for async tests"
    )
    say(f"  {'runner':<14}{runner}", f"  {'options go to':<14}{ini}")
    plan = Proposal(project, ini, settings, chosen_app(project, app or named))
    _learn(plan, seconds=seconds)
    edits = proposed(plan)
    if plan.unsure:
        say(
            "",
            "Not sure:",
            *(f"  {line}" for one in plan.unsure for line in one.splitlines()),
        )
    say("", "".join(line for edit in edits for line in edit.diff(here)))
    if not edits:
        say("nothing is to be written")
        return 0
    words = {"otherwise": "nothing is written", "command": "arena init --yes"}
    if not agreed("Write this?", already=is_agreed, **words):
        return _FAILED
    write_all(edits)
    say(f"written: {', '.join(os.path.relpath(edit.path, here) for edit in edits)}")
    return _proven(here, edits)


def _shown(project: Project) -> Iterator[str]:
    for kind in _KINDS:
        every = project.all(kind)
        for one in every[:_FEW]:
            about = f" ({one.about})" if one.about else ""
            yield f"  {_SHOWN_AS.get(kind, kind):<14}{one.name}{about}   {one.place}"
        if len(every) > _FEW:
            yield f"  {'':<14}and {len(every) - _FEW} more"
    for path in project.migrations:
        yield f"  {'migrations':<14}{path.relative_to(project.folder).as_posix()}"
    for path in project.scripts[:_FEW]:
        yield f"  {'script':<14}{path.relative_to(project.folder).as_posix()}"
    if not project.all("app", "factory", "unfit") and project.is_library:
        yield f"  {'no app':<14}a library: arena_schema alone is proposed"
    for place in project.unread:
        yield f"  {'not parsed':<14}{place}"
    if not any(
        (folder / ".git").exists()
        for folder in (project.folder, *project.folder.parents)
    ):
        yield f"  {'no git':<14}what is written here is taken back by hand alone"


def _learn(plan: Proposal, *, seconds: float) -> None:
    """Import the app under the guard, then ask it; what cannot be learned is not sure."""
    if not plan.app:
        _learn_of_library(plan, seconds=seconds)
        return
    folder = plan.project.folder
    words = [*_words(plan), f"--arena-app={plan.app}"]
    asked = {"app": plan.app, "bases": [one.name for one in plan.project.all("tables")]}
    say("", "Importing it under the guard: no database of yours can be reached.")
    plan.facts = guarded(folder, asked, [*words, "--arena-schema="], seconds=seconds)
    if "problem" in plan.facts:  # it may be that of a conftest.py alone
        plan.doubt(
            "pytest could not begin with your conftest.py:", plan.facts["problem"]
        )
        words.append("--noconftest")
        plan.facts = guarded(
            folder, asked, [*words, "--arena-schema="], seconds=seconds
        )
    if wrong := plan.facts.get("error") or plan.facts.get("problem"):
        plan.doubt("the app was not imported, so that no test is written:", wrong)
        plan.schema = next(schemas(plan))
        return
    for name, dialect, driver, _ in plan.facts["engines"]:
        say(f"  {'database':<14}{name} ({dialect}+{driver})")
    for name, tables in plan.facts["bases"]:
        say(
            f"  {'tables':<14}{name}: {', '.join(tables[:_FEW])}{', …' * (len(tables) > _FEW)}"
        )
    for schema in schemas(plan):
        asked["schema"] = schema
        facts = _tried(
            plan, asked, [*words, f"--arena-schema={schema}"], seconds=seconds
        )
        if _is_settled(plan, schema, facts):
            break


def _words(plan: Proposal) -> list[str]:
    """Return the arguments for pytest: the folder of the tests, and the folders to import from."""
    folder = plan.project.folder
    tests = plan.tests
    paths = " ".join(
        f'"{one.as_posix()}"' for one in [*plan.folders("pythonpath"), plan.root]
    )
    return [
        str(tests if tests.is_dir() else folder),
        f"--override-ini=pythonpath={paths}",
    ]


def _tried(
    plan: Proposal, question: Facts, words: list[str], *, seconds: float
) -> Facts:
    """Build the tables and ask the app. If a driver is refused, try it redirected."""
    folder = plan.project.folder
    if plan.redirects:
        words = [*words, "--arena-drivers=redirect"]
    facts = guarded(folder, question, words, seconds=seconds)
    wrong = facts.get("unbuilt") or facts.get("error") or []
    is_refused = facts.get("redirect") or any(REDIRECT in text for text in wrong)
    if not is_refused or plan.redirects or "arena_drivers" in plan.settings:
        return facts
    redirected = guarded(
        folder, question, [*words, "--arena-drivers=redirect"], seconds=seconds
    )
    if "unbuilt" in redirected or "error" in redirected or "problem" in redirected:
        return facts
    plan.redirects = True
    return redirected


def _learn_of_library(plan: Proposal, *, seconds: float) -> None:
    """Import the module that makes a library's tables, under the guard."""
    plan.facts = {"bases": [], "engines": [], "routes": []}
    say(
        "", "Importing its tables under the guard: no database of yours can be reached."
    )
    for schema in schemas(plan):
        plan.schema = schema
        words = [*_words(plan), f"--arena-schema={schema}"]
        module, is_attribute, _ = schema.partition(":")
        question = {"app": "", "module": module if is_attribute else ""}
        facts = guarded(plan.project.folder, question, words, seconds=seconds)
        wrong = facts.get("error") or facts.get("problem")
        if not wrong:
            plan.facts = facts
            return
        plan.doubt(f"arena_schema = {schema}:", wrong)


def _is_settled(plan: Proposal, schema: str, facts: Facts) -> bool:
    """Whether the tables were built like this, or will be nowhere here."""
    wrong = facts.get("unbuilt") or facts.get("error")
    if told := wrong or facts.get("problem"):
        plan.doubt(f"arena_schema = {schema}:", told)
    if wrong and not facts.get("server"):
        return False
    if "fixture" in facts:
        plan.doubt("a fixture of your suite fails, around each test:", facts["fixture"])
    plan.schema = schema
    for path, status, asks_database, why in facts["routes"]:
        say(
            f"  GET {path} → {status or why}{', from the database' if asks_database else ''}"
        )
    plan.answers = [one for one in facts["routes"] if one[1]]
    return True


def _proven(here: Path, edits: list[FileChange]) -> int:
    """Run the first test as the reader would."""
    for test in (edit.path for edit in edits if edit.path.suffix == ".py"):
        status, output = run_python(here, "-m", "pytest", "--no-header", str(test))
        lines = [line for line in output.splitlines() if line.strip()]
        if status:
            say(*lines, f"the first test is red; next: pytest {test}")
            return _FAILED
        say(f"{test.name}: {lines[-1].strip('= ')}")
    say("next: pytest, then arena init --check")
    return 0
