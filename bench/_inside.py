"""A process with the gate, in which the product's own levels are entered and left."""

from __future__ import annotations

import os
import sqlite3
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from bench.place import ROOT
from bench.work import LOOP, around, checkout, per_call, requests, test_on
from bench.worker import serve
from pytest_arena._app._app_run import AppRun
from pytest_arena._app._client import Hooks
from pytest_arena._app._kind import build_app
from pytest_arena._config._read import load_config
from pytest_arena._databases._resolver import Level
from pytest_arena._ledger import Ledger
from pytest_arena._run._run import ArenaRun
from pytest_arena._run.levels._participants import LevelHooks

if TYPE_CHECKING:
    from collections.abc import Callable

_serials = count(1)


def main() -> None:
    """Set the gate up, import the app, connect once; then answer."""
    config = load_config(
        flags={"schema": "bench.suite.shop:Base", "seed": "bench.suite.shop:seed"},
        environ=os.environ,
        ini=lambda _name: "",
        root=ROOT,
    )
    plugins = pytest.PytestPluginManager()
    plugins.add_hookspecs(LevelHooks)
    run = ArenaRun(config, Ledger(), plugins.hook, temporary=lambda: None)
    run.databases.environment.redirect()
    from bench.suite import shop  # noqa: PLC0415 - after the gate, as an app is

    run.check()
    LOOP.run_until_complete(test_on(shop.engine))
    try:
        serve(
            {
                "levels": _levels(run, shop.engine),
                "statement": _statement(),
                "checkout": checkout(shop.engine),
                **_requests(shop),
            }
        )
    finally:
        LOOP.run_until_complete(shop.engine.dispose())
        run.finish()


def _levels(run: ArenaRun, engine: Any) -> Callable[[int], list[float]]:
    """All that a boundary costs: the levels, the gate's look at kept connections, the isolation."""
    levels = run.levels

    def enter() -> None:
        levels.enter(Level("bench", "bench", next(_serials)))

    def leave() -> None:
        levels.leave(run.databases.levels[-1])

    return around(enter, lambda: LOOP.run_until_complete(test_on(engine)), leave)


def _statement() -> Callable[[int], list[float]]:
    cursor = sqlite3.connect(":memory:").cursor()
    return per_call(lambda: cursor.execute("SELECT 1"), calls=1000)


def _requests(shop: Any) -> dict[str, Callable[[int], list[float]]]:
    app = build_app(shop.app)

    def new_run() -> AppRun:
        return AppRun(app, hooks=Hooks())

    async def first() -> None:
        run = new_run()
        await run.new_client().get("/nothing")
        await run.aclose()
        run.close()

    return {
        "request": requests(new_run().new_client()),
        "first_request": per_call(lambda: LOOP.run_until_complete(first()), calls=10),
    }


if __name__ == "__main__":
    main()
