"""`arena init`: looks, says what it found, shows what it would write, and writes after a yes."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange, write_all
from pytest_arena._cli.init._guarded import guarded, run_python
from pytest_arena._cli.init._look import Project, look_at
from pytest_arena._cli.init._proposal import Proposal, chosen_app, proposed, schemas
from pytest_arena._config._project import pytest_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.init._guarded import Facts

_FAILED = 1
_FEW = 4
_KINDS = ("app", "factory", "unfit", "tables", "engine", "variable", "fixture")


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
    if named and (test := project.first_test):
        say(f"all is there: arena_app = {named} in {found}, and a test in {test.place}")
        return 0
    ini = found or next(here.glob("pyproject.toml"), here / "pytest.ini")
    files = f"{project.files} file{'s' * (project.files != 1)}"
    say(f"Looked at {files} below {here}, and imported none:", *_shown(project))
    mode = settings.get("asyncio_mode") or "strict"
    runner = (
        f"pytest-asyncio, mode {mode}" if find_spec("pytest_asyncio") else "none for async tests"
    )
    say(f"  {'runner':<14}{runner}", f"  {'options go to':<14}{ini}")
    plan = Proposal(project, ini, settings, chosen_app(project, app or named))
    _learn(plan, seconds=seconds)
    edits = proposed(plan)
    if plan.unsure:
        say("", "Not sure:", *(f"  {line}" for one in plan.unsure for line in one.splitlines()))
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


def say(*lines: str) -> None:
    """Print lines at once: what follows may take a while."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def agreed(question: str, *, already: bool, otherwise: str, command: str) -> bool:
    """Whether somebody says yes, by ``--yes`` or now; else say what was not done."""
    if already:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        say(f"{otherwise}: nobody can be asked here", f"next: {command}")
    elif input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}:
        return True
    else:
        say(otherwise)
    return False


def _shown(project: Project) -> Iterator[str]:
    for kind in _KINDS:
        every = project.all(kind)
        for one in every[:_FEW]:
            about = f" ({one.about})" if one.about else ""
            yield f"  {kind:<14}{one.name}{about}   {one.place}"
        if len(every) > _FEW:
            yield f"  {'':<14}and {len(every) - _FEW} more"
    for path in project.migrations:
        yield f"  {'migrations':<14}{path.relative_to(project.folder).as_posix()}"
    for place in project.unread:
        yield f"  {'not parsed':<14}{place}"
    if not any((folder / ".git").exists() for folder in (project.folder, *project.folder.parents)):
        yield f"  {'no git':<14}what is written here is taken back by hand alone"


def _learn(plan: Proposal, *, seconds: float) -> None:
    """Import the app under the guard, then ask it; what cannot be learned is not sure."""
    folder, tests = plan.project.folder, plan.tests
    paths = " ".join(f'"{one.as_posix()}"' for one in [*plan.folders("pythonpath"), plan.root])
    words = [str(tests if tests.is_dir() else folder)]
    words += [f"--override-ini=pythonpath={paths}", f"--arena-app={plan.app}"]
    asked = {"app": plan.app, "bases": [one.name for one in plan.project.all("tables")]}
    say("", "Importing it under the guard: no database of yours can be reached.")
    plan.facts = guarded(folder, asked, [*words, "--arena-schema="], seconds=seconds)
    if "problem" in plan.facts:  # it may be that of a conftest.py alone
        plan.doubt("pytest could not begin with your conftest.py:", plan.facts["problem"])
        words.append("--noconftest")
        plan.facts = guarded(folder, asked, [*words, "--arena-schema="], seconds=seconds)
    if wrong := plan.facts.get("error") or plan.facts.get("problem"):
        plan.doubt("the app was not imported, so that no test is written:", wrong)
        plan.schema = next(schemas(plan))
        return
    for name, dialect, driver, _ in plan.facts["engines"]:
        say(f"  {'database':<14}{name} ({dialect}+{driver})")
    for name, tables in plan.facts["bases"]:
        say(f"  {'tables':<14}{name}: {', '.join(tables[:_FEW])}{', …' * (len(tables) > _FEW)}")
    for schema in schemas(plan):
        asked["schema"] = schema
        facts = guarded(folder, asked, [*words, f"--arena-schema={schema}"], seconds=seconds)
        if _is_settled(plan, schema, facts):
            break


def _is_settled(plan: Proposal, schema: str, facts: Facts) -> bool:
    """Whether the tables were built like this, or will be nowhere here."""
    wrong = facts.get("unbuilt") or facts.get("error")
    if told := wrong or facts.get("problem"):
        plan.doubt(f"arena_schema = {schema}:", told)
    if wrong and not facts.get("server"):
        return False
    plan.schema = schema
    for path, status, asks_database, why in facts["routes"]:
        say(f"  GET {path} → {status or why}{', from the database' if asks_database else ''}")
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
