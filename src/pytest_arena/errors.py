"""The errors of pytest-arena.

Each message has the same four parts: what happened, why it matters, the likely cause in the user's
code, the next step. It ends with a code and the address of its section of
``docs/reference/errors.md``.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

# The names of secret values. `hash` in a longer word, such as `hashtag`, is no secret.
_NAMES = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|private)[-_]?key|credential"
    r"|(?<!\w)session[-_]?(?:id|key)(?!\w)"
    r"|(?<![^\W_])(?:hash(?:ed)?|salt|otp|pin|cvc|cvv|bearer)(?![^\W_])|(?<=[a-z])hash(?!\w))"
)


def is_secret(name: str) -> bool:
    """Return whether no report shows the values of a column or a parameter with this name."""
    return re.search(_NAMES, name, re.IGNORECASE) is not None


# A string of Python or JSON, and brackets with what is in them. One without an end ends its line.
_STRING = r"""[bru]{0,2} (?: '(?:[^'\\]|\\.)*+' | "(?:[^"\\]|\\.)*+" | ['"].*+ )"""
_BRACKETS = r"[{[(] .*+"
for _ in range(3):
    _BRACKETS = rf"""(?: [{{[(] (?: {_STRING} | [^'"{{}}\[\]()] | {_BRACKETS} )*+ [}}\])]
        | [{{[(] .*+ )"""

# SQLAlchemy hides the password of a URL in repr(url), but not a password in its query.
# `re` compiles these at their first use, because that takes 4 ms.
_SECRETS = (
    # user:password@host in any URL, up to the last @, because a password may contain an @.
    (r"(://[^\s:/@]*):[^\s'\"]*@", r"\1:***@"),
    # password=… in a query, a libpq string ('quoted words' too) or a call, and "password": … in a
    # dict, with strings, lists and dicts.
    (
        rf"""(?ix) ((?<!empty_root_){_NAMES} \w{{0,40}}+ \\?['"]? \s* [=:] (?![:=]) \s*)
        (?!(?:yes|no)\))  # "(using password: NO)" in a server's error
        (?: {_STRING} | [\w.]* {_BRACKETS} | \\" .*? \\" | [^\s&;,'")\]}}]+ )""",
        r"\1***",
    ),
    # A login in a header, and a JSON Web Token, wherever they are.
    (r"(?i)\b(bearer|basic) (?=\S*[\d=]|\S{20})[\w.~+/=-]+", r"\1 ***"),
    (r"\beyJ[\w-]+\.[\w.-]+", "***"),
)


def redact(text: str) -> str:
    """Return ``text`` without the passwords of the URLs, libpq strings and calls in it.

    >>> redact("postgresql://me:s3cret@db/shop?password=other")
    'postgresql://me:***@db/shop?password=***'
    """
    for secret, shown in _SECRETS:
        text = re.sub(secret, shown, text)
    return text


# The login before the last @ in a malformed URL, such as with a superfluous slash or quote.
_LOGIN = r"(?s)^((?:\w[\w+.-]*:/+)?[^:@]*):(?!/).*@"


def redact_url(text: str) -> str:
    """Return a URL, which may be malformed, without the password of its login.

    >>> redact_url("postgresql:/me:my secret@db/shop")
    'postgresql:/me:***@db/shop'
    """
    return re.sub(_LOGIN, r"\1:***@", text)


def in_words(error: BaseException) -> str:
    """Return the type and the text of an error, without passwords."""
    return redact(f"{type(error).__name__}: {error}".removesuffix(": "))


PAGE = "https://pytest-arena.github.io/pytest-arena/reference/errors.html"
# Users read messages in a terminal, so a message with its code has at most twelve lines.
_LINES = {"what": 3, "why": 1, "cause": 4, "fix": 3}
_LETTERS = 400


class ArenaError(Exception):
    """The root of all errors of pytest-arena.

    Args:
        what: what happened, with the values that matter. This class hides passwords.
        why: why it matters.
        cause: the likely cause in the user's code, with ``file:line`` if it is known.
        fix: the next step, as code to paste if that is possible.
    """

    code: ClassVar[str] = "A000"
    __module__ = "pytest_arena.errors"

    def __init__(self, what: str, *, why: str, cause: str, fix: str) -> None:
        self.what: str = _short(what, "what")
        self.why: str = _short(why, "why")
        self.cause: str = _short(cause, "cause")
        self.fix: str = _short(fix, "fix")
        super().__init__(self.what)

    def __str__(self) -> str:
        parts = (("why", self.why), ("cause", self.cause), ("next", self.fix))
        indented = "\n         "
        lines = [
            f"  {name + ':':<6} {indented.join(text.splitlines())}" for name, text in parts if text
        ]
        return "\n".join([self.what, *lines, f"  [{self.code}] {PAGE}#{self.code.lower()}"])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the error with its keyword arguments: a pool would wait for ever otherwise."""
        return partial(type(self), self.what, why=self.why, cause=self.cause, fix=self.fix), ()


def _short(text: str, part: str) -> str:
    lines = [cut(line, _LETTERS) for line in redact(text).rstrip().splitlines()]
    allowed = _LINES[part]
    if len(lines) > allowed:
        total = len(lines)
        lines = lines[:allowed]
        lines[-1] += f" … ({total} lines)"
    return "\n".join(lines)


def cut(text: str, longest: int) -> str:
    """Return a text with at most this number of characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class ConfigError(ArenaError):
    """An option, marker, path or call is wrong. Exit status 4 at collection, 2 of ``arena``."""

    code = "A101"


class RefusedError(ArenaError):
    """The guard refused an access, and touched nothing. A ``creator=`` has connected by then."""


class ProductionDatabaseError(RefusedError):
    """The guard refused a connection past the app's URL, or a change beyond the test's database."""

    code = "A201"


class UnknownDatabaseError(RefusedError):
    """A connection leads to a database that pytest-arena neither created nor may use."""

    code = "A202"


class AfterSessionError(RefusedError):
    """An engine opened a connection after the test session had finished."""

    code = "A203"


class NetworkError(RefusedError, OSError):
    """A test reached another machine. HTTP clients raise it as an error of the connection."""

    code = "A204"


class ServerError(ArenaError):
    """No server has a place for the test databases. The message names each tried place."""

    code = "A301"


class TemplateError(ArenaError):
    """The template (schema and seed) could not be built. The first error has its traceback."""

    code = "A401"


class IsolationError(ArenaError):
    """A database cannot be provided to a test, or cannot be restored. The message names why."""

    code = "A501"


class RaceError(ArenaError):
    """A race or ``arena.interruptions()`` cannot run or be repeated, or would prove nothing."""

    code = "A502"


class LeakError(ArenaError):
    """A test left something that would affect the next test."""


class ConnectionLeak(LeakError):
    """A test ended inside a transaction."""

    code = "A602"


class LateWorkError(LeakError):
    """Work of a request still runs, though a test has waited for it or has ended."""

    code = "A604"


class PendingWorkError(ArenaError):
    """A sync request inside an async test would not see work that is not committed yet."""

    code = "A701"


class LifespanError(ArenaError):
    """The app's start-up or shutdown failed."""

    code = "A702"


class LoginError(ArenaError):
    """A client should be logged in, but ``arena_login`` is missing or failed."""

    code = "A703"


class ScenarioError(ArenaError):
    """A specification cannot be read, or a test names an unknown scenario or step."""

    code = "A801"


class NotWritten(ScenarioError):
    """A test of a scenario is not written yet."""

    __module__ = "pytest_arena"

    def __str__(self) -> str:
        """Return only two lines, because many tests may have this error."""
        return f"{self.what}\n  next: {self.fix}"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of its cause, and so on, each once."""
    yielded: list[BaseException] = []
    while error is not None and all(error is not other for other in yielded):
        yielded.append(error)
        yield error
        error = error.__cause__ or error.__context__
