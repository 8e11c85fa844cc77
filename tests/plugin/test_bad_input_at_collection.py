"""Mistakes of configuration: at collection, exit status 4, one message, no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import Example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Run

ONE = "def test_one():\n    pass\n"
WORKERS = ("-p", "xdist.plugin", "-n", "2")


def expect_one_message(run: Run, *texts: str, code: str = "[A101]") -> None:
    """Exit status 4, the four parts and the code once, and no traceback."""
    assert run.status == 4, run.output
    run.says(*texts, code).never_says("INTERNALERROR", "Traceback (most recent call last)")
    assert run.output.count(code) == 1, run.output
    for part in ("why:", "cause:", "next:"):
        assert run.output.count(f"  {part}") == 1, run.output


@pytest.mark.parametrize(
    "module,says",
    [
        ("x = = 1", "broken.py:1 x = = 1"),
        ("app = 1.5", "(an instance of float)"),
        ("def app(settings, database): ...", "neither an app (ASGI, WSGI) nor a plain function"),
    ],
)
def test_an_app_that_cannot_be_one(example: Example, module: str, says: str) -> None:
    project = example.with_files(broken=module, test_one=ONE)
    expect_one_message(project.run("-oarena_app=broken:app"), says)


MARKED = """
import pytest

@pytest.mark.arena({})
def test_one():
    pass
"""


@pytest.mark.parametrize(
    "marker, workers", [("isolation='cpoy'", ()), ("'copy'", WORKERS), ("sead=False", ())]
)
def test_a_wrong_marker_is_named_with_its_line(
    example: Example, marker: str, workers: tuple[str, ...]
) -> None:
    """The workers see it, the controller says it, once, and no worker is waited for."""
    run = example.with_files(test_one=MARKED.format(marker)).run(*workers)
    expect_one_message(run, "test_one.py:4", "isolation: auto, copy")


@pytest.mark.parametrize(
    "file, section, other",
    [
        ("pyproject.toml", "tool.pytest.ini_options", '[project.scripts]\narena_x = "b:main"'),
        ("pytest.ini", "pytest", "[testenv]\narena_backend = yes"),
        ("tox.ini", "pytest", "[testenv]\narena_backend = yes"),
        ("setup.cfg", "tool:pytest", "[options.entry_points]\narena_backend = b:main"),
        ("arena.toml", "tool.pytest.ini_options", '[tool.backend]\narena_backend = "yes"'),
    ],
)
def test_only_the_section_of_pytest_has_options(
    tmp_path: Path, file: str, section: str, other: str
) -> None:
    """A project's own name may begin with arena_. A misspelt option is still an error."""
    text = f"{other}\n[{section}]\nminversion = '8'\n".replace("'", '"' * ("toml" in file))
    example = Example(tmp_path, {file: text, "test_one.py": ONE})
    example.run("-c", file).expect(passed=1)
    wrong = example.with_paths({file: f"{text}arena_sead = 'seed:seed'\n"}).run("-c", file)
    expect_one_message(wrong, "arena_sead is no option", file, "arena_seed = …")


def test_a_login_that_is_missing_is_said_where_it_is_needed(example: Example) -> None:
    """At the line that asks for a role: a suite without roles needs none."""
    text = "def test_one(test_client_as):\n    test_client_as('admin')\n"
    run = example.with_files(test_one=text).run().expect(status=1, failed=1)
    run.says("test_one.py:2", "no client can log in as 'admin'", "[A703]")
    expect_one_message(example.run("-oarena_login=app:engine"), "called with (client, role)")


def test_a_mistake_beside_a_test_file_that_does_not_import_hides_neither(example: Example) -> None:
    """The usual case: both come from one mistake, an app that is not on sys.path."""
    run = example.with_files(test_one="import nothing_here\n").run("-oarena_app=aap:app")
    assert run.status == 4
    run.says("No module named 'nothing_here'", "No module named 'aap'")


@pytest.mark.parametrize(
    "module,test,says",
    [
        ("a2wsgi", "def test_one(test_client): ...", "pytest-arena[wsgi]"),
        ("uvicorn", "def test_one(live_server): ...", "pytest-arena[live]"),
        ("httpx2 httpx", "async def test_one(client): ...", "pytest-arena[http]"),
        ("starlette.testclient", "def test_one(test_client): ...", "pytest-arena[http]"),
    ],
)
def test_a_package_of_an_extra_that_is_missing_is_named(
    example: Example, module: str, test: str, says: str
) -> None:
    missing = f"import sys\nsys.modules.update(dict.fromkeys({module.split()!r}))\n"
    app = "wsgi:app" if module == "a2wsgi" else "app:app"
    wsgi = "def app(environ, start_response): ...\n"
    run = example.with_files(conftest=missing, wsgi=wsgi, test_one=f"{test}\n")
    run.run(f"-oarena_app={app}").says(says, "is not installed", "[A101]")
