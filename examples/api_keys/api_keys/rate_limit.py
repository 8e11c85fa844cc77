"""How often a key may be used: counted in the memory of this process."""

import time
from dataclasses import dataclass, field

LIMIT = 20
WINDOW_SECONDS = 60


@dataclass(slots=True)
class RateLimiter:
    """Counts what each key has asked for in the current window."""

    _windows: dict[int, tuple[float, int]] = field(default_factory=dict)

    def seconds_to_wait(self, key_id: int) -> int:
        """Count a request of this key; 0 lets it pass."""
        now = time.monotonic()
        start, count = self._windows.get(key_id, (now, 0))
        if now - start >= WINDOW_SECONDS:
            start, count = now, 0
        self._windows[key_id] = (start, count + 1)
        return 0 if count < LIMIT else round(start + WINDOW_SECONDS - now) or 1

    def reset(self) -> None:
        """Forget all that was counted."""
        self._windows.clear()


limiter = RateLimiter()
