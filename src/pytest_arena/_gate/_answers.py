"""The record of a request for the gate. It shows a commit after the answer.

FastAPI runs the code behind a dependency's ``yield`` after the answer. So may a middleware.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import REQUEST, user_line
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextvars import Token

    from pytest_arena._values import CodeLine


@dataclass(slots=True, eq=False)
class RequestAnswer:
    """One request: its answer, its statements, and its commits after the answer."""

    is_sent: bool = False  # whether the client has the whole answer
    is_over: bool = False  # whether the app has returned from the request
    statements: list[str] = field(default_factory=list)  # of the request, in order
    # The app's lines that committed, or failed to, a transaction that began before the answer.
    late_commits: list[CodeLine | None] = field(default_factory=list)
    failure: str = ""  # the last error of a statement or a commit, with the app's line
    _token: Token[object] | None = None
    _body_size: int | None = None  # from the header
    _bytes_sent: int = 0

    def begin(self) -> None:
        """Note that the app begins the answer in this context."""
        self._token = REQUEST.set(self)

    def note_sent(self, message: Mapping[str, Any]) -> None:
        """Note a message that the app has sent. The last byte of the body completes the answer.

        A middleware may send an empty message afterwards, when the app has finished.
        """
        if message["type"] == "http.response.start":
            size = dict(message.get("headers", ())).get(b"content-length")
            if size is not None:
                self._body_size = int(size)
        elif message["type"] == "http.response.body":
            self._bytes_sent += len(message.get("body", b""))
            has_all = self._bytes_sent == self._body_size
            self.is_sent |= has_all or not message.get("more_body", False)

    def note_commit(self) -> None:
        """Note a commit, or a failed statement, of a transaction that began before the answer."""
        if self.is_sent and not self.is_over:
            self.late_commits.append(user_line())

    def note_error(self, error: BaseException) -> None:
        """Note that a statement or a commit of the request has failed."""
        line = user_line()
        where = f" ({line.short})" if line is not None else ""
        first_line = str(error).partition("\n")[0]
        self.failure = redact(f"{type(error).__name__}: {first_line}{where}")

    def end(self) -> None:
        """Note that the app has returned. Later statements of its tasks do not count."""
        self.is_over = True
        self.statements = []
        # A token refers to the context, and the context to this object: break the cycle.
        if self._token is not None:
            REQUEST.reset(self._token)
            self._token = None


def answer_here() -> RequestAnswer | None:
    """Return the record of the request that runs here, None if the app has returned from it."""
    answer: RequestAnswer | None = REQUEST.get()
    return None if answer is None or answer.is_over else answer


def unsent_answer() -> RequestAnswer | None:
    """Return the record of the request that runs here, None if its answer is sent."""
    answer = answer_here()
    return None if answer is None or answer.is_sent else answer


@contextmanager
def apart_from_requests() -> Iterator[None]:
    """Run a block outside of the current request, such as the build of a template."""
    token = REQUEST.set(None)
    try:
        yield
    finally:
        REQUEST.reset(token)
