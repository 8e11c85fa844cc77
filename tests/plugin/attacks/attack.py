"""The table of attacks of a project, and the test that makes each of them.

A redirected attack lands in the test's database. A refused one raises by the line ``# here``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

Attack = Callable[..., object]
ATTACKS: dict[str, tuple[Attack, str]] = {}


def redirected(attack: Attack) -> Attack:
    """Add an attack that lands in the test's database."""
    ATTACKS[attack.__name__] = (attack, "redirected")
    return attack


def refused(attack: Attack) -> Attack:
    """Add an attack that is refused by its line."""
    ATTACKS[attack.__name__] = (attack, "refused")
    return attack


def prevented(attack: Attack) -> Attack:
    """Add an attack for which SQLite has an error."""
    ATTACKS[attack.__name__] = (attack, "prevented")
    return attack


def attempt(name: str, request: pytest.FixtureRequest, *arguments: object) -> None:
    """Make an attack. Without the plugin it reaches the developer's database."""
    attack, outcome = ATTACKS[name]
    arena = None
    with contextlib.suppress(pytest.FixtureLookupError):
        arena = request.getfixturevalue("arena")
    if arena is None or outcome == "redirected":
        attack(*arguments)
        return
    if outcome == "prevented":
        with pytest.raises(Exception, match="too many attached databases"):
            attack(*arguments)
        return
    with arena.expect_refusal() as refusal:
        attack(*arguments)
    if name not in {"async_creator", "raw_async"}:  # aiosqlite connects in a thread
        assert "# here" in refusal.error.cause, refusal.error.cause


def in_thread(call: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error
