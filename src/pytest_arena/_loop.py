"""Which event loop runs here, and what runs a coroutine where none does?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["run_in_new_loop", "running_loop"]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, None where none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_in_new_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine where no loop runs.

    Unlike asyncio.run, it leaves the main thread's event loop to the user.
    """
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()
