"""Follows one warm test through the package: a POST and a GET, the third of four such tests.

``python -m tests.architecture_walk`` (`make walk`) prints the figures. With ``lower`` it lowers the
figures in `architecture_exceptions.txt` (`make lower`). With ``map`` it draws the list of packages
in `architecture.md` (`make map`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from pytest_arena.testing import fastapi_example
from tests.architecture import MAP, MEASURES, Measure, draw_map, lower, package
from tests.plain_language import LANGUAGE

TESTS = """
import pytest

@pytest.mark.parametrize("n", range(4))
async def test_walked(client, n):
    assert (await client.post("/dancers/x")).status_code == 201
    assert len((await client.get("/dancers")).json()) == 2
"""

CONFTEST = """
import gc, json, os, sys, threading
import pytest, pytest_arena

ROOT = os.path.dirname(pytest_arena.__file__) + os.sep


class Walk:
    def __init__(self):
        self.files = set()
        self.stacks = {}
        self.frames = 0
        self.calls = 0
        self.switches = 0

    def note(self, frame, event, argument):
        file = frame.f_code.co_filename
        if event in ("call", "return") and file.startswith(ROOT):
            stack = self.stacks.setdefault(threading.get_ident(), [])
            if event == "return":
                stack and stack.pop()
                return
            if stack and stack[-1] != file:
                self.switches += 1
            stack.append(file)
            self.calls += 1
            self.files.add(file)
            self.frames = max(self.frames, len(stack))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        if not item.name.endswith("[2]"):
            return (yield)
        gc.disable()  # finalizers would be counted, at random
        threading.setprofile(self.note)
        sys.setprofile(self.note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def pytest_unconfigure(self):
        modules = sum(name.split(".")[0] == "pytest_arena" for name in sys.modules)
        walk = dict(
            calls=self.calls,
            switches=self.switches,
            files=len(self.files),
            frames=self.frames,
            modules=modules,
        )
        with open("walk.json", "w") as file:
            json.dump(walk, file)


def pytest_configure(config):
    config.pluginmanager.register(Walk(), "walk")
"""

URLS = {
    "SQLite": "sqlite+aiosqlite:///dev.db",
    "PostgreSQL": "postgresql+asyncpg://x@127.0.0.1:1/x",
}


@cache
def walk(product: str) -> dict[str, int]:
    """Return the calls, files and frames of one warm test, and the modules that the run imports."""
    env = {"DATABASE_URL": URLS[product]}
    if product == "PostgreSQL":
        env["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
    with tempfile.TemporaryDirectory() as folder:
        example = fastapi_example(Path(folder)).with_files(test_walk=TESTS, conftest=CONFTEST)
        example.run(env=env).expect(passed=4)
        figures: dict[str, int] = json.loads((example.folder / "walk.json").read_text())
    return figures


def import_ratio() -> float:
    """Return the plugin's time of import in units of the import of pytest and SQLAlchemy."""
    base = "import pytest, sqlalchemy.ext.asyncio, sqlalchemy.orm"

    def least(code: str) -> float:
        timed = f"import time; a = time.perf_counter(); {code}; print(time.perf_counter() - a)"
        command = [sys.executable, "-c", timed]
        runs = [subprocess.run(command, capture_output=True, check=True) for _ in range(8)]
        return min(float(run.stdout) for run in runs[1:])

    alone = least(base)
    return round((least(f"{base}, pytest_arena.plugin") - alone) / alone, 2)


WALKS = (
    Measure("calls of a test on PostgreSQL", 600, lambda _: walk("PostgreSQL")["calls"]),
    Measure("file switches of a test on PostgreSQL", 250, lambda _: walk("PostgreSQL")["switches"]),
    Measure("files of a test on PostgreSQL", 30, lambda _: walk("PostgreSQL")["files"]),
    Measure("frames of a test on PostgreSQL", 12, lambda _: walk("PostgreSQL")["frames"]),
    Measure("files of a test on SQLite", 26, lambda _: walk("SQLite")["files"]),
    Measure("frames of a test on SQLite", 11, lambda _: walk("SQLite")["frames"]),
    Measure("modules of a run on SQLite", 90, lambda _: walk("SQLite")["modules"]),
)


def main(words: list[str]) -> None:
    """Print the figures, lower the exceptions, or draw the map."""
    if words == ["map"]:
        MAP.write_text(draw_map(package(), MAP.read_text("utf-8")), "utf-8")
        return
    from tests.servers.beside import ServerBeside  # noqa: PLC0415 - the map needs no server

    server = ServerBeside()
    server.start()
    os.environ["TESTS_POSTGRESQL"] = server.url
    try:
        if words == ["lower"]:
            print(*lower((*MEASURES, *LANGUAGE, *WALKS)), sep="\n")
            return
        print(*(f"{product}: {walk(product)}" for product in URLS), sep="\n")
    finally:
        server.stop()
    print(f"import of the plugin / of pytest and SQLAlchemy: {import_ratio()}, at most 0.4")


if __name__ == "__main__":
    main(sys.argv[1:])
