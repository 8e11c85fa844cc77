"""The server's user for all connections of the app: it has rights on pytest-arena's databases only.

The server refuses what such a connection sends to another database or to the whole server.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._mysql._control import MySQLFailure, literal, open_control
from pytest_arena._values import ServerLogin, digest
from pytest_arena.errors import ServerError

if TYPE_CHECKING:
    from pytest_arena._product._server_control import Control
    from pytest_arena._values import Address

_PREFIX = "arena_app_"  # of the user's name
_LONGEST_NAME = 32  # on MySQL
_REFUSED_LOGIN = (1045, 1698)
_NO_RIGHT = 1227
_PLACE = r"`arena\_%`.*"
# Rights to end the sessions of another user.
_END_SESSIONS = {"CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"}
# Grants that reach no row of another database. MariaDB has databases named test for all users.
_HARMLESS = re.compile(
    r"GRANT (?:(?:USAGE|PROCESS|SHOW DATABASES|CREATE USER|SET USER|CONNECTION[ _]ADMIN)(?:, )?)+ "
    r"ON \*\.\* TO |GRANT .+ ON `arena\\?_[^`]*`\.\S+ TO |.* TO `?PUBLIC`?$"
)


def app_login(control: Control, address: Address) -> ServerLogin:
    """Return the login of the app's connections. Create it if it does not exist.

    It stays on the server, because views of a template belong to it. If pytest-arena's login
    has rights on pytest-arena's databases only, it is also the app's.

    Raises:
        ServerError: the login has more rights, and may not create a user.
        MySQLFailure: the server does not answer, or has no free connection.
    """
    if all(_HARMLESS.match(line) for (line,) in control.rows("SHOW GRANTS")):
        return ServerLogin(address.user, address.password)
    login = _login_for(address)
    [(host,)] = control.rows("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    # An anonymous user of this machine has precedence over a user of any machine.
    place = "localhost" if host == "localhost" else "%"
    account = f"{literal(login.user)}@{literal(place)}"
    password = literal(login.password)
    create = f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password}"
    grant = f"GRANT ALL ON {_PLACE} TO {account}"
    try:
        _check_rights(control)
        if not _is_usable(address.as_(login)):
            control.run(create)
            control.run(f"ALTER USER {account} IDENTIFIED BY {password}")
            control.run(grant)
    except MySQLFailure as error:
        if error.is_lost or error.is_crowded:
            raise
        raise ServerError(
            f"{address.server}: no user for the app's connections: {error.first_line}",
            why=f"{address.user} has rights on databases that are not pytest-arena's, and the app "
            "must not reach them",
            cause=f"{address.user} lacks CREATE USER, PROCESS, CONNECTION ADMIN, or the right to "
            "grant",
            fix=f"{create};\n{grant};   -- as an administrator\n"
            f"and GRANT PROCESS, CONNECTION ADMIN ON *.* TO {address.user};   -- to end sessions",
        ) from error
    return login


def _login_for(address: Address) -> ServerLogin:
    """Return the user's login, the same in each run, known to those who know the password."""
    name = f"{_PREFIX}{address.user}"[:_LONGEST_NAME]
    secret = digest(f"{address.user} {address.password}")
    # Password plugins require letters, digits and other characters.
    return ServerLogin(name, f"aA1!{secret[:24]}")


def _is_usable(address: Address) -> bool:
    """Return whether the user can log in and has its rights."""
    try:
        control = open_control(replace(address, database=""))
    except MySQLFailure as error:
        if error.code not in _REFUSED_LOGIN:
            raise
        return False
    with closing(control):
        return any(_PLACE in line for (line,) in control.rows("SHOW GRANTS"))


def _check_rights(control: Control) -> None:
    """Check the rights to see and to end the sessions of another user."""
    rows = control.rows(
        "SELECT privilege_type FROM information_schema.user_privileges "
        "WHERE REPLACE(grantee, '''', '') = CURRENT_USER()"
    )
    rights = {str(right) for (right,) in rows}
    if "PROCESS" not in rights or not rights & _END_SESSIONS:
        raise MySQLFailure("PROCESS or CONNECTION ADMIN is missing", _NO_RIGHT)
