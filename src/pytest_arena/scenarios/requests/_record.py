"""The record of one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_arena._gate.writes._statement_log import StatementLog
from pytest_arena._ledger import Request
from pytest_arena._run._test import StoryMoment, Turn
from pytest_arena.scenarios.requests._reads import RowsRead

_MOST_BYTES = 65_536  # of a request's body

# The status that a server sends when an app accepts or refuses a websocket.
_SWITCHED = 101
_FORBIDDEN = 403


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request to the app under test, with the work of the app in it."""

    request: Request
    query: str
    is_login: bool
    """Whether a client sent it to log in."""
    is_by_browser: bool
    """Whether a browser sent it by itself, such as for an icon or an image."""
    number: int = -1
    """The number among the requests of the test, or -1 if it does not count as evidence."""
    route: str = ""
    body: bytes = b""
    rows_read: RowsRead = field(default_factory=RowsRead)
    statement_log: StatementLog = field(init=False)
    written_before: Mapping[StatementLog, int] = field(default_factory=dict)
    """How many writes each level of the test had when the request began."""
    is_preparation: bool = False
    """Whether it was sent in set-up or in a Given block."""
    is_concurrent: bool = False
    """Whether another request ran at the same time."""
    is_foreign: bool = False
    """Whether it runs, and a client that pytest-arena does not know has sent it."""
    is_answered: bool = False
    is_over: bool = False
    is_observed: bool | None = None
    """Whether the test looked at the answer. None if unknown."""
    turn: Turn | None = None
    """The requests of the test that ran at the same time."""
    since: StoryMoment | None = None
    """The moment of its beginning, if it followed a redirect in the same turn."""
    until: StoryMoment | None = None
    """The moment of its end, if a redirect followed it in the same turn."""

    def __post_init__(self) -> None:
        self.statement_log = StatementLog(row_listener=self.rows_read)

    @property
    def is_counted(self) -> bool:
        """Whether it counts as evidence. Requests of a login or of a browser by itself do not."""
        return not self.is_login and not self.is_by_browser

    @property
    def before(self) -> StoryMoment | None:
        """The moment when it began, or None if it is no longer known."""
        if self.since is not None:
            return self.since
        if self.turn is not None:
            return self.turn.before
        return None

    @property
    def after(self) -> StoryMoment | None:
        """The moment when it ended, or None while it runs."""
        if self.until is not None:
            return self.until
        if self.turn is not None:
            return self.turn.after
        return None

    def join(self, turn: Turn) -> None:
        """Note the turn of the test's story that the request belongs to."""
        self.turn = turn

    def follow(self, previous: "RequestRecord", moment: StoryMoment) -> None:
        """Note that this request follows a redirect of the previous one."""
        self.since = moment
        previous.end_at(moment)

    def end_at(self, moment: StoryMoment) -> None:
        """Note the moment at which a redirect of this request was followed."""
        self.until = moment

    def note_earlier_writes(self, levels: Sequence[StatementLog]) -> None:
        """Note the uncommitted writes of the test's levels before this request."""
        self.written_before = {
            statement_log: len(statement_log.written) for statement_log in levels
        }
        self.statement_log.see_pending(levels)

    def begin_foreign(self, seconds: float) -> None:
        """Note that no client of the test sent this request."""
        self.is_foreign = True
        self.request.begin(seconds)

    def end_foreign(self, seconds: float) -> bool:
        """Note the duration of a foreign request. Return False for any other request."""
        if not self.is_foreign:
            return False
        self.is_foreign = False
        self.request.end(seconds)
        return True

    def note_body(self, message: Mapping[str, Any]) -> None:
        """Add the part of the body in an ASGI message."""
        text = message.get("text") or ""
        part = message.get("body") or message.get("bytes") or text.encode()
        self.body = (self.body + part)[:_MOST_BYTES]

    def note_status(self, message: Mapping[str, object]) -> None:
        """Read the status from the first ASGI message of the answer."""
        if self.request.status is None:
            self.request.note_status(_status(message))

    def note_answered(self) -> bool:
        """Note that the app is about to answer. Return False if this was already noted."""
        is_first = not self.is_answered
        self.is_answered = True
        return is_first

    def count_as(self, number: int, *, is_preparation: bool) -> None:
        """Count the request as evidence."""
        self.number = number
        self.is_preparation = is_preparation

    def note_concurrent(self) -> None:
        """Note that another request runs at the same time."""
        self.is_concurrent = True

    def note_observed(self, *, is_observed: bool | None) -> None:
        """Note whether the test looked at the answer."""
        self.is_observed = is_observed

    def end(self, route: str) -> None:
        """Note that the app has returned."""
        self.route = route
        self.is_over = True


def _status(message: Mapping[str, Any]) -> int | None:
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            status: int = message["status"]
            return status
        case "websocket.accept":
            return _SWITCHED
        case "websocket.close":
            return _FORBIDDEN
    return None
