"""A setting becomes a project that can be run: files, options, the twin for sync tests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.conformance import project_texts as common
from tests.conformance.products import lacks_of, product_of
from tests.conformance.stories_kept import ANY_KIND, ASYNC_ONLY, SAME_KIND
from tests.example import Example

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conformance.setting import Setting

__all__ = ["kept_stories", "plain", "project", "written_for"]

_CONFIG = """
[pytest]
arena_app = app:app
arena_schema = app:Base
arena_seed = seed:seed
arena_isolation = {isolation}
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
asyncio_default_test_loop_scope = {loop}
filterwarnings =
    error
    default::pytest_arena.LostWriteWarning
pythonpath = .
"""

# The line of a story where its marker stands; a story without it is the same for all runners.
_RUNNER = "# runner"

# From a coroutine to a function. The names of SQLAlchemy's classes go with the words.
_TWINS = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncSession\b", "Session"),
    (r"\basync_sessionmaker\b", "sessionmaker"),
    (r"\bcreate_async_engine\b", "create_engine"),
)
# Where the names of the sync twins come from, whichever of them a text imports.
_BOTH_KINDS = """
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker
"""


def project(setting: Setting, folder: Path) -> Example:
    """Return the app of the stories, without any story yet."""
    files = {
        "pytest.ini": _config(setting),
        "setting.py": _constants(setting, folder / "project"),
        "app.py": _of_the_app(setting, common.APP),
        "seed.py": common.SEED,
        "hand.py": _hand(setting),
        "conftest.py": common.CONFTEST
        + (common.CLIENT_ASYNC if setting.awaits else common.CLIENT_PLAIN),
        "both_kinds.py": _BOTH_KINDS,
        **product_of(setting).files(setting),
    }
    return Example(folder / "project", files)


def kept_stories(setting: Setting) -> dict[str, str]:
    """Return the stories in which all goes well, as far as they apply to a setting."""
    stories = dict(ANY_KIND)
    if not setting.is_mixed:
        stories |= SAME_KIND
    if setting.is_async:
        stories |= ASYNC_ONLY
    stories |= product_of(setting).stories(setting)
    return {name: written_for(setting, text) for name, text in stories.items()}


def written_for(setting: Setting, story: str) -> str:
    """Return a story for the runner of a setting: its marker, or its sync twin."""
    if _RUNNER not in story:
        return story
    text = story.replace(_RUNNER, _header(setting))
    return text if setting.awaits else plain(text)


def plain(text: str) -> str:
    """Return the sync twin of a text that is written for coroutines."""
    for word, twin in _TWINS:
        text = re.sub(word, twin, text)
    return text.replace("from sqlalchemy.ext.asyncio", "from both_kinds")


def _of_the_app(setting: Setting, text: str) -> str:
    return text if setting.is_async else plain(text)


def _hand(setting: Setting) -> str:
    text = _of_the_app(setting, common.HAND)
    text += common.TOGETHER_ASYNC if setting.awaits else common.TOGETHER_PLAIN
    return text + common.AWAITED * setting.is_mixed + common.FIXTURE


def _config(setting: Setting) -> str:
    mode = "auto" if setting.runner == "asyncio-auto" else "strict"
    more = "".join(
        f"{name} = {value}\n" for name, value in product_of(setting).options(setting).items()
    )
    return _CONFIG.format(isolation=setting.isolation, mode=mode, loop=setting.loop) + more


def _header(setting: Setting) -> str:
    marks = {
        "asyncio": f'asyncio(loop_scope="{setting.loop}")',
        "anyio": "anyio",
        "anyio-uvloop": "anyio",
    }
    mark = marks.get(setting.runner)
    return f"import pytest\npytestmark = pytest.mark.{mark}" if mark else ""


def _constants(setting: Setting, folder: Path) -> str:
    options = {
        "": "{}",
        "one": "{'pool_size': 1, 'max_overflow': 0}",
        "NullPool": "{'poolclass': NullPool}",
    }
    ping = ", 'pool_pre_ping': True" * setting.pre_ping
    lines: Mapping[str, str] = {
        **product_of(setting).urls(setting, folder),
        "OPTIONS": f"{{**{options[setting.pool]}{ping}}}",
        "RUNNER": repr(setting.runner),
        "LOOP": repr(setting.loop),
        "LACKS": repr(lacks_of(setting)),
    }
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    return f"from sqlalchemy.pool import NullPool\n{text}"
