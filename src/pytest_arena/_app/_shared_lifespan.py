"""Who starts the app's lifespan, and who only uses it?"""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_arena._app._lifespan import Lifespan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.from_thread import BlockingPortal

    from pytest_arena._app._kind import ASGIApp

__all__ = ["SharedLifespan"]


class SharedLifespan:
    """One lifespan for all clients of an app, async and sync, in whatever loop they are used.

    The first to come starts it, in the loop where it runs its own requests. The others use it,
    also from other loops and threads. It is started anew only when it has been shut down, when
    its loop was closed, or when its start-up failed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lock = threading.Lock()
        # The last one is current; the others still have something to say.
        self._lifespans: list[Lifespan] = []

    @property
    def state(self) -> Mapping[str, Any]:
        """What the lifespan hands on to requests."""
        return self._lifespans[-1].state if self._lifespans else {}

    async def ajoin(self) -> None:
        """Wait until the app is up; start it in the running loop if it is not."""
        __tracebackhide__ = True
        lifespan, _ = self._current(lambda: Lifespan.begin(self._app))
        await lifespan.astarted()

    def join(self, portal: BlockingPortal) -> Lifespan | None:
        """Wait until the app is up; start it in the portal's loop if it is not.

        Returns the lifespan if this call started it.
        """
        __tracebackhide__ = True
        lifespan, is_new = self._current(lambda: portal.call(Lifespan.begin, self._app))
        lifespan.started()
        return lifespan if is_new else None

    def _current(self, begin: Callable[[], Lifespan]) -> tuple[Lifespan, bool]:
        with self._lock:
            if self._lifespans and self._lifespans[-1].is_usable:
                return self._lifespans[-1], False
            unsettled = [each for each in self._lifespans if not each.is_settled]
            self._lifespans = [*unsettled, begin()]
            return self._lifespans[-1], True

    def known(self) -> list[Lifespan]:
        """Return the lifespans that have been begun, and have something to do or to say."""
        return list(self._lifespans)

    def close_others(self, known: list[Lifespan]) -> None:
        """Shut down what was begun since; a later request starts the app again."""
        __tracebackhide__ = True
        with ExitStack() as stack:
            for lifespan in self._lifespans:
                if lifespan not in known:
                    stack.callback(lifespan.close)

    async def aclose(self) -> None:
        """Shut down what runs in this loop."""
        __tracebackhide__ = True
        loop = asyncio.get_running_loop()
        for lifespan in self._lifespans:
            if lifespan.lives_in(loop):
                await lifespan.stop()

    def close(self) -> None:
        """Shut down what still runs anywhere; one failure does not keep the others open."""
        __tracebackhide__ = True
        with ExitStack() as stack:
            for lifespan in self._lifespans:
                stack.callback(lifespan.close)
