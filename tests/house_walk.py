"""The way of one warm test through the house: a POST and a GET, the third of four such tests.

``python -m tests.house_walk`` (`make walk`) prints the figures; with ``lower`` it lowers those in
`house_exceptions.txt` (`make lower`), with ``map`` it draws the map of the house (`make map`).
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
from tests.house import MAP, MEASURES, Measure, draw_map, lower, package

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
        self.files, self.stacks, self.frames, self.calls = set(), {}, 0, 0

    def note(self, frame, event, argument):
        file = frame.f_code.co_filename
        if event in ("call", "return") and file.startswith(ROOT):
            stack = self.stacks.setdefault(threading.get_ident(), [])
            if event == "return":
                stack and stack.pop()
                return
            stack.append(file)
            self.calls += 1
            self.files.add(file)
            self.frames = max(self.frames, len(stack))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        if not item.name.endswith("[2]"):
            return (yield)
        gc.disable()  # what it collects, and when, is no part of the way
        threading.setprofile(self.note)
        sys.setprofile(self.note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def pytest_unconfigure(self):
        modules = sum(name.split(".")[0] == "pytest_arena" for name in sys.modules)
        walk = dict(calls=self.calls, files=len(self.files), frames=self.frames, modules=modules)
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
    """The calls, files and frames of ours in one warm test, and the modules of the whole run."""
    env = {"DATABASE_URL": URLS[product]}
    if product == "PostgreSQL":
        env["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
    with tempfile.TemporaryDirectory() as folder:
        example = fastapi_example(Path(folder)).with_files(test_walk=TESTS, conftest=CONFTEST)
        example.run(env=env).expect(passed=4)
        figures: dict[str, int] = json.loads((example.folder / "walk.json").read_text())
    return figures


def import_ratio() -> float:
    """How often the import of pytest and SQLAlchemy fits into the plugin's, the least of seven."""
    base = "import pytest, sqlalchemy.ext.asyncio, sqlalchemy.orm"

    def least(code: str) -> float:
        timed = f"import time; a = time.perf_counter(); {code}; print(time.perf_counter() - a)"
        command = [sys.executable, "-c", timed]
        runs = [subprocess.run(command, capture_output=True, check=True) for _ in range(8)]
        return min(float(run.stdout) for run in runs[1:])

    alone = least(base)
    return round((least(f"{base}, pytest_arena.plugin") - alone) / alone, 2)


WALKS = (
    Measure("files of a test on PostgreSQL", 30, lambda _: walk("PostgreSQL")["files"]),
    Measure("frames of a test on PostgreSQL", 12, lambda _: walk("PostgreSQL")["frames"]),
    Measure("files of a test on SQLite", 26, lambda _: walk("SQLite")["files"]),
    Measure("frames of a test on SQLite", 11, lambda _: walk("SQLite")["frames"]),
    Measure("modules of a run on SQLite", 90, lambda _: walk("SQLite")["modules"]),
)


def main(words: list[str]) -> None:
    """Print the figures, lower those of the list, or draw the map of the house anew."""
    if words == ["map"]:
        MAP.write_text(draw_map(package(), MAP.read_text("utf-8")), "utf-8")
        return
    from tests.servers.beside import ServerBeside  # noqa: PLC0415 - the suite has one already

    server = ServerBeside()
    server.start()
    os.environ["TESTS_POSTGRESQL"] = server.url
    try:
        if words == ["lower"]:
            print(*lower((*MEASURES, *WALKS)), sep="\n")
            return
        print(*(f"{product}: {walk(product)}" for product in URLS), sep="\n")
    finally:
        server.stop()
    print(f"import of the plugin / of pytest and SQLAlchemy: {import_ratio()}, at most 0.4")


if __name__ == "__main__":
    main(sys.argv[1:])
