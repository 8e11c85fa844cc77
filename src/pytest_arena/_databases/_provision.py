"""What is in a database of the arena when somebody first connects to it, and after each level?"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pytest_arena import _process
from pytest_arena._databases._builds import BuildAim
from pytest_arena._databases._template import Store
from pytest_arena._product import Held
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, ConfigError, IsolationError, ServerError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config import Config
    from pytest_arena._databases._builds import Builds
    from pytest_arena._databases._template import Recipe
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database, Isolation


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A state of all databases that is entered and left.

    ``serial`` is a test's or an example's own number, by which it is known what was taken in it;
    0 for a wider fixture's.
    """

    owner: object
    name: str
    serial: int = 0
    stage: Stage = Stage.SEEDED
    isolation: str = "auto"  # as the test's marker asks for
    is_anew: bool = False  # it begins as the template, whatever the levels below have written

    @property
    def is_test(self) -> bool:
        """Whether it is a test's, or an example's, and no wider fixture's."""
        return self.serial > 0


_Content = dict[str, str]


class Verified:
    """An isolation whose database is read whole, before each level and after it.

    What is compared comes from the database itself, and not from what the isolation knows of it. A
    difference raises an IsolationError that names what is different; before that, the database is
    brought back by force, so that the next level starts as it should. Where the database could
    not be read, because somebody held a lock on it, that is noted for the summary.

    Cost: two readings of all rows and definitions for each level; see ``content`` of the dialects.
    """

    def __init__(self, isolation: Isolation, database: str, ledger: Ledger) -> None:
        self._isolation, self._database, self._ledger = isolation, database, ledger
        self._before: list[_Content | None] = []  # by level; None where it could not be read
        self._found: IsolationError | None = None
        isolation.check = self._check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._isolation, name)

    def enter(self) -> None:
        """Open a level, and read what it begins with."""
        self._isolation.enter()
        # Whoever was broken off may have left one too many.
        self._before[self._isolation.depth - 1 :] = [self._read()]

    def leave(self) -> bool:
        """Go back, and compare.

        Raises:
            Held: as the isolation does.
            IsolationError: likewise, or there is a difference; the level is still there.
        """
        if self._found is not None:
            raise self._found
        changed = self._isolation.leave()
        del self._before[self._isolation.depth :]
        return changed

    def leave_by_force(self) -> None:
        """Go back by the isolation's last resort, and compare.

        Raises:
            IsolationError: likewise, or there was a difference before, or is one now.
        """
        number = self._isolation.depth - 1
        # One that was broken off at its start was not read.
        before = self._before[number] if number < len(self._before) else None
        del self._before[number:]
        self._isolation.leave_by_force()
        if different := _different(before, self._read()):
            self._found = self._error(different, "also where it was put in its place anew")
        found, self._found = self._found, None
        if found is not None:
            raise found

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep what stands."""
        self._isolation.forget(is_undone=is_undone)
        self._before.pop()

    def is_clean(self) -> bool:
        """Whether nothing was changed, as the isolation says and as can be seen.

        One that only says so is told of when the level is left.
        """
        if not self._isolation.is_clean():
            return False
        different = _different(self._before[-1], self._read())
        if different:
            self._found = self._error(different, "and the level was called clean")
        return not different

    def _check(self) -> None:
        """Compare, while the level can still be left by force."""
        if different := _different(self._before[-1], self._read()):
            self._found = self._error(different, "which was put right before the next test")
            raise self._found

    def _read(self) -> _Content | None:
        started = _process.seconds()
        try:
            found = dict(self._isolation.content())
        except (Held, ArenaError) as error:
            self._ledger.note(f"{self._database}: not verified each time: {error.args[0]}")
            return None
        self._ledger.has_verified(_process.seconds() - started)
        return found

    def _error(self, different: list[str], outcome: str) -> IsolationError:
        name, more = self._isolation.name, len(different) - _MOST
        shown = ", ".join(different[:_MOST]) + f" and {more} more" * (more > 0)
        return IsolationError(
            f"{self._database} is not as it was before ({outcome}): {shown}",
            why="the next test would have started on what this one left",
            cause=f"the isolation {name!r} missed it, or somebody wrote while it was verified: a "
            "thread, another process",
            fix=_FIXES.get(name, _REPORT),
        )


_REPORT = "please report it, with the output of pytest --arena-verify"
_FIXES = {"undo": f"pytest --arena-isolation=clone   # and {_REPORT}"}
_MOST = 6


def _different(before: _Content | None, after: _Content | None) -> list[str]:
    """Return in words what is different, nothing where it is not known."""
    if before is None or after is None or before == after:
        return []
    names = sorted({*before, *after}, key=lambda name: (name.startswith("definition"), name))
    changed = [name for name in names if before.get(name) != after.get(name)]
    return [_difference(name, before.get(name), after.get(name)) for name in changed]


def _difference(name: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{name} (was not there)"
    if after is None:
        return f"{name} (is gone)"
    # What a person can read of a digest of rows is their number.
    was, now = (
        text[: text.find(" rows, ") + 5] if " rows, " in text else "" for text in (before, after)
    )
    return f"{name} ({now}, and had {was})" if was != now else name


class Provision:
    """Gives a database its template's content, and lets it join the levels that stand."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        builds: Builds,
        *,
        recipe_of: Callable[[Database], Recipe],
    ) -> None:
        self._config, self._ledger, self._builds = config, ledger, builds
        self._recipe_of = recipe_of
        # Under `--arena-rebuild` templates older than the run's start are not good enough. The
        # first process says when it started; its workers inherit it, and build once together.
        since = os.environ.setdefault(_SINCE, str(time.time())) if config.rebuild else 0.0
        self._newer_than = float(since)
        self.stores: dict[tuple[str, str], Store[Any]] = {}  # by products and drivers

    def ensure(self, database: Database, levels: list[Level]) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built; in full the first time.
            ServerError: there is no server to have it on; likewise.
            ConfigError: the isolation that is asked for is not its product's; likewise.
        """
        with database.lock:
            if database.failure is not None:
                raise self._ledger.refused(_repeated(database.failure))
            if database.isolation is None and not database.busy:
                self._fill(database, levels)
            return database.isolation  # type: ignore[return-value]  # None only inside _fill

    def _fill(self, database: Database, levels: list[Level]) -> None:
        database.busy = True
        try:
            template = self._template(database, Stage.SEEDED)
            isolation = database.product.isolate(database, template)
            if self._config.verify:
                isolation = cast("Isolation", Verified(isolation, database.name, self._ledger))
            for level in levels:
                self.enter(isolation, database, level)
            database.is_of_a_test = bool(levels) and levels[-1].is_test
            database.isolation = isolation
        except (ConfigError, ServerError, TemplateError) as error:
            database.failure = error
            raise self._ledger.refused(error) from error.__cause__
        finally:
            database.busy = False

    def enter(self, isolation: Isolation, database: Database, level: Level) -> None:
        """Open a level on one database, with the content that the level asks for.

        Raises:
            ConfigError: its test is marked with an isolation that this database does not have.
            IsolationError: it has it, and there is no room for a copy.
        """
        is_other = level.isolation not in {"auto", isolation.name}
        if is_other and (reason := database.product.ask_for(level.isolation, isolation)):
            raise ConfigError(
                f"{level.name}: isolation={level.isolation!r} is not to be had: {reason}",
                why="a test that was isolated another way than was asked for would prove nothing",
                cause="the test's marker, @pytest.mark.arena",
                fix=f"@pytest.mark.arena(isolation={isolation.name!r}), or no isolation",
            )
        isolation.enter()
        if level.is_anew or level.stage is not Stage.SEEDED:
            isolation.replace(self._template(database, level.stage))

    def _template(self, database: Database, stage: Stage) -> Any:
        key = database.product.name, database.dialect.driver
        if key not in self.stores:
            shelves = database.product.shelves(database.dialect)
            self.stores[key] = Store(shelves, self._config.root, self._newer_than)
        recipe = self._recipe_of(database)
        return self.stores[key].ensure(
            recipe,
            stage,
            lambda target: self._builds.around(BuildAim(database, str(recipe), target)),
        )


_SINCE = "ARENA_REBUILT_SINCE"


def _repeated(failure: ArenaError) -> ArenaError:
    what = f"no database, as the first test that connected says: {failure.what}"
    why = failure.why
    if isinstance(failure, TemplateError):
        builder = failure.what.partition(" failed:")[0]
        what = f"no database: {builder} failed, as the first test that connected says"
        why = "no test can have a database before its template is built"
    return type(failure)(what, why=why, cause=failure.cause, fix="the same as there")
