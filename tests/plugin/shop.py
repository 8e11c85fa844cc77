"""The shop of one of the suites' apps, as a project."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.suites.harness import ROOT

if TYPE_CHECKING:
    from tests.example import Example


def shop(example: Example, name: str = "async_app", *, page: str = "", **files: str) -> Example:
    app = (ROOT / "apps" / f"{name}.py").read_text(encoding="utf-8")
    models = (ROOT / "apps" / "models.py").read_text(encoding="utf-8")
    example = example.change("pytest.ini", "app:Base", "models:Base")
    example = example.change("pytest.ini", "seed:seed", "models:seed")
    driver = "sqlite+aiosqlite" if name == "async_app" else "sqlite"
    env = {"DATABASE_URL": f"{driver}:///shop.db"}
    return replace(example, env=env).with_files(app=app + page, models=models, **files)
