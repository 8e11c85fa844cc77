"""The example whose engine has the URL of the developer's database on MySQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.example import Example, fastapi_example

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

    from tests.conformance.story_mysql_server import StoryMySQLServer

_ENGINE = 'create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///dev.db"))'


def shop(server: StoryMySQLServer, folder: Path) -> Example:
    """Return the project. Each of its tests is checked for what it leaves."""
    return shop_on(server.developers_url("mysql+asyncmy"), server.url("mysql"), folder)


def shop_on(apps: URL, runs: URL, folder: Path) -> Example:
    """Return the project with the URL of the app's engine, and that of the runs' server."""
    url = apps.render_as_string(hide_password=False)
    server = runs.render_as_string(hide_password=False)
    example = fastapi_example(folder).change("app.py", "import select", "import String, select")
    example = example.change("app.py", "mapped_column(unique", "mapped_column(String(50), unique")
    engine = f"URL = {url!r}\nengine = create_async_engine(URL, pool_pre_ping=True)"
    example = example.change("app.py", f"engine = {_ENGINE}", engine)
    example = example.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {server}")
    return replace(example, options=("--arena-verify",))
