"""The server's users for the app's connections."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import (
    NO_PLUGIN,
    NO_TABLE,
    MySQLControlLine,
    MySQLFailure,
    literal,
    open_control,
)
from pytest_arena._mysql._errors import GRANT_ACCOUNTS
from pytest_arena._mysql.accounts._grants import (
    ALL,
    ANY_DATABASE,
    Grant,
    UnreadableGrantError,
    account_shown,
    grants_on,
)
from pytest_arena._values import PAST_POLICIES, ServerLogin

if TYPE_CHECKING:
    from pytest_arena._mysql.accounts import AccountRegistry
    from pytest_arena._product import Core, Database
    from pytest_arena._values import Address

_NO_PROGRAM = 1305  # a procedure or a function that the schema does not have
# PROCESS, because pytest-arena must see the sessions of another user to end them.
_NEEDED = (
    {"CREATE USER"},
    {"PROCESS"},
    {"CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"},
)
_OWN_RIGHTS = (
    "SELECT privilege_type FROM information_schema.user_privileges "
    "WHERE REPLACE(grantee, '''', '') = CURRENT_USER()"
)
_CALLS_USER = r"'\\b((session_|system_|current_)?user *[(]|current_user\\b)'"
_NAMES_USER = """
SELECT table_name FROM information_schema.views
WHERE table_schema = {database} AND view_definition REGEXP {calls}
UNION ALL SELECT routine_name FROM information_schema.routines
WHERE routine_schema = {database} AND routine_definition REGEXP {calls}
UNION ALL SELECT trigger_name FROM information_schema.triggers
WHERE event_object_schema = {database} AND action_statement REGEXP {calls}
"""


@dataclass(slots=True)
class _Account:
    """A user that pytest-arena has created for a database and a user of the app."""

    login: ServerLogin
    shown: str  # the account's name in a statement
    grants: list[Grant]
    database: str = ""  # the live database on which the user has rights

    def give(self, control: MySQLControlLine, live: str) -> None:
        """Grant the rights on a live database, and revoke the earlier ones. Raises as ``run``."""
        if self.database == live:
            return
        if self.database:
            control.run(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {self.shown}")
        for grant in self.grants:
            # The developer's database may have tables and programs that the schema lacks.
            try:
                control.run(grant.statement(live, self.shown))
            except MySQLFailure as error:
                if error.number not in (NO_TABLE, _NO_PROGRAM):
                    raise
        self.database = live


class Accounts:
    """Users that pytest-arena creates, one for each database and user of the app's engines.

    Such a user has rights only on the live database, like the app's user on its database. The
    rights are the schema's grants, or else the rights of the app's user on this server, or else all
    rights.
    """

    def __init__(self, core: Core, registry: AccountRegistry) -> None:
        self._core = core
        self._registry = registry
        self._address = registry.address_of()
        self._lock = threading.RLock()
        self._missing: str | None = None  # why no user can be created
        self._accounts: dict[tuple[Database, str], _Account | None] = {}
        self._created_users: set[str] = set()  # only the schema's grants need them

    def create_users_of_app(self) -> None:
        """Create the users of the app's engines on a private server. A schema may name them.

        They have no password, because only this user of the system can enter the server's folder.

        Raises:
            ServerError: the server does not answer.
        """
        _, logins = self._core.requested()
        self._created_users |= {*logins}
        with self._registry.reporting("the app's users cannot be created"):
            for user in sorted(logins):
                account = account_shown(user, "%")
                self._registry.control.run(f"CREATE USER IF NOT EXISTS {account}")

    def login_of(
        self, database: Database, login: ServerLogin | None, address: Address
    ) -> ServerLogin | None:
        """Return the login for an engine with a login of the app, None for pytest-arena's login.

        An engine without a login, such as a session's, gets the login of the app's first engine.

        Raises:
            ServerError: the server does not answer.
        """
        live = address.database
        login = login or database.login
        if login is None or login.user in {self._address.user, PAST_POLICIES}:
            return None
        with self._lock:
            key = database, login.user
            if key not in self._accounts:
                with self._registry.reporting("no user for the app's connections"):
                    self._accounts[key] = self._create(database, login.user, live)
                    self._note_names_of_users(login.user, live)
            account = self._accounts[key]
            if account is None:
                return None
            # Another live database may have replaced the earlier one.
            with self._registry.reporting("no rights for the app's connections"):
                account.give(self._registry.control, live)
            return account.login

    def forget(self, database: Database) -> None:
        """Drop the users of a database that was removed."""
        with self._lock:
            for key in [key for key in self._accounts if key[0] is database]:
                account = self._accounts.pop(key)
                if account is not None:
                    self._registry.drop(account.login.user)

    # Create

    def _create(self, database: Database, user: str, live: str) -> _Account | None:
        account = None
        next_step = ""
        reason = self._missing_right()
        if not reason:
            try:
                grants, unknown = self._grants_for(database, user, live)
                account = self._created(grants, live)
            except MySQLFailure as error:
                if error.is_lost:
                    raise
                reason = str(error).splitlines()[0]
                if error.number == NO_PLUGIN:
                    next_step = "pip install 'pytest-arena[mysql]'"
        if account is None:
            next_step = next_step or self._grants_to_paste()
            self._core.ledger.note(
                f"the grants of {user} do not act: the app works as {self._address.user}, which "
                f"has all rights on its databases. It cannot work as {user}: {reason}. "
                f"Next: {next_step}"
            )
        elif unknown:
            self._core.ledger.note(
                f"the grants of {user} do not act: {unknown}. In tests the app has all rights on "
                "its database, and no others. Next: CREATE USER and GRANT on this server, or GRANT "
                "in the schema"
            )
        return account

    def _grants_to_paste(self) -> str:
        [(version,)] = self._registry.control.rows("SELECT VERSION()")
        admin = "CONNECTION ADMIN" if "MariaDB" in version else "CONNECTION_ADMIN"
        return GRANT_ACCOUNTS.format(user=self._address.user, admin=admin)

    def _missing_right(self) -> str:
        """Return which right pytest-arena's login lacks to create users, or ""."""
        if self._missing is None:
            rights = {
                str(right) for (right,) in self._registry.control.rows(_OWN_RIGHTS)
            }
            lacking = [
                " or ".join(sorted(names)) for names in _NEEDED if not names & rights
            ]
            self._missing = ""
            if lacking:
                self._missing = f"{self._address.user} lacks {lacking[0]}"
        return self._missing

    def _grants_for(
        self, database: Database, user: str, live: str
    ) -> tuple[list[Grant], str]:
        """Return the rights of a user of the app, and "", or why the rights are unknown."""
        of_schema = self._registry.grants_of(live).get(user, [])
        if of_schema:
            return grants_on(ANY_DATABASE, of_schema), ""
        host = self._host_of(user)
        if host is None:
            # The user of most apps may do everything in the app's database.
            return [ALL], ""
        rows = self._registry.control.rows(
            f"SHOW GRANTS FOR {account_shown(user, host)}"
        )
        name = database.key.name.partition("/")[2]
        try:
            grants = grants_on(name, (line for (line,) in rows))
        except UnreadableGrantError as error:
            return [ALL], f"pytest-arena cannot give them to another user: {error}"
        if not grants and user in self._created_users:
            return [ALL], ""
        if not grants:
            return [ALL], f"the user has no grants on {name} on this server"
        return grants, ""

    def _host_of(self, user: str) -> str | None:
        """Return the host of the account that the server would choose for this machine."""
        hosts = self._registry.hosts_of(user)
        for host in (self._registry.client_host(), "localhost", "%", *hosts):
            if host in hosts:
                return host
        return None

    def _created(self, grants: list[Grant], live: str) -> _Account:
        """Create a user with rights, and log in once."""
        login, shown = self._registry.create_account()
        try:
            account = _Account(login, shown, grants)
            account.give(self._registry.control, live)
            address = replace(self._address.as_(login), database="")
            with closing(open_control(address, patience=self._address.patience)):
                return account
        except BaseException:
            self._registry.drop(login.user)
            raise

    def _note_names_of_users(self, user: str, live: str) -> None:
        """Note views and programs that read the user's name, which differs in tests."""
        question = _NAMES_USER.format(database=literal(live), calls=_CALLS_USER)
        names = [name for (name,) in self._registry.control.rows(question)]
        if names:
            self._core.ledger.note(
                f"USER() and CURRENT_USER() are not {user} in {', '.join(names)}: "
                "pytest-arena cannot log in as a user of the app"
            )
