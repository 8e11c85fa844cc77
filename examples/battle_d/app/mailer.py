"""How a letter leaves the app."""

import logging
from collections import deque
from dataclasses import dataclass

log = logging.getLogger(__name__)

LETTERS_KEPT = 50
"""Enough to find a link again in development, and never more than a few kilobytes."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One e-mail."""

    to: str
    subject: str
    text: str


class LoggingMailer:
    """Writes letters to the log instead of sending them, and keeps the latest."""

    def __init__(self) -> None:
        """Start with an empty box."""
        self._sent: deque[Letter] = deque(maxlen=LETTERS_KEPT)

    def send(self, letter: Letter) -> None:
        """Log the letter, where a developer finds the link in it."""
        self._sent.append(letter)
        log.info("Letter to %s: %s\n%s", letter.to, letter.subject, letter.text)

    def find_latest(self, to: str) -> Letter | None:
        """Give the latest letter to an address, if there is one."""
        return next((letter for letter in reversed(self._sent) if letter.to == to), None)


mailer = LoggingMailer()
