"""The warnings of pytest-arena. Pytest's ``filterwarnings`` fails, silences or waives them.

Each is emitted at the end of the test that caused it, with the line of the app. The report of
``--arena-replay`` has its findings. They are not emitted, but filters may make errors of them.
"""

__all__ = [
    "AccessWarning",
    "ArenaWarning",
    "LateCommitWarning",
    "LateWorkWarning",
    "LeakWarning",
    "LostWriteWarning",
    "MigrationDriftWarning",
    "RaceWarning",
    "TornWriteWarning",
]


class ArenaWarning(UserWarning):
    """The root of all warnings of pytest-arena."""


class LostWriteWarning(ArenaWarning):
    """The app, or a fixture, has written, and never committed it."""


class LateCommitWarning(ArenaWarning):
    """The app answered a request before it committed the writes of the request."""


class LateWorkWarning(ArenaWarning):
    """Work of a request failed after the answer, or still ran when its test ended."""


class LeakWarning(ArenaWarning):
    """A test left something that pytest-arena has removed: a connection, a task, an object.

    With ``--arena-replay``: after an interruption the next request fails.
    """


class MigrationDriftWarning(ArenaWarning):
    """The migrations build another database than the models describe."""


class RaceWarning(ArenaWarning):
    """Requests at once had a result that they never have one after the other."""


class TornWriteWarning(ArenaWarning):
    """An interrupted request has left a part of its rows. Only ``--arena-replay`` gives it."""


class AccessWarning(ArenaWarning):
    """A request with a login has its effect without it. Only ``--arena-replay`` gives it."""
