"""The roles of the app's connections."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql._server_registry import TURNS
from pytest_arena._values import PAST_POLICIES, ServerLogin

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product import Core, Database
    from pytest_arena._values import Address

    _Login: TypeAlias = ServerLogin | None  # None: pytest-arena's login


class Roles:
    """The roles that the app's connections use on one server.

    On a private server pytest-arena creates the roles that the app's engines name.

    The first login of a database owns the objects that the schema's builder has created, unless
    the schema grants something to the login itself. In that case, and for any other login, a role
    has what the schema grants. Grants to groups do not count for the first login, because it may
    be a member only for SET ROLE.
    """

    def __init__(self, core: Core, registry: ServerRegistry, *, is_private: bool) -> None:
        self._core = core
        self._registry = registry
        self._is_private = is_private
        self._address = registry.address_of()
        self._names = core.config.roles
        self._is_off = self._names == ("off",)
        # The login of each user, or None and the reason.
        self._logins: dict[str, tuple[_Login, str]] = {}
        self._first: dict[Database, _Login] = {}
        self._others: dict[tuple[Database, str], _Login] = {}

    # Before a template is built

    def prepare(self) -> None:
        """Create the roles to which a schema may grant something."""
        if not self._is_off:
            for name in self._names:
                with self._registry.reporting(f"arena_roles names {name}"):
                    self._ensure_role(name, "")
        if self._is_private:
            for user in sorted(self._core.users()):
                self._usable(ServerLogin(user))

    def _ensure_role(self, name: str, attribute: str = "LOGIN") -> None:
        """Create a role on a private server. On another server, check that it exists."""
        exists = f"EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(name)})"
        if self._is_private:
            role = f"ROLE {identifier(name)} {attribute}"
            body = (
                f"BEGIN PERFORM pg_catalog.pg_advisory_xact_lock({TURNS}, 0); "
                f"IF {exists} THEN ALTER {role}; ELSE CREATE {role}; END IF; END"
            )
            self._registry.control.run(f"DO {literal(body)}")
        elif self._registry.control.rows(f"SELECT {exists}") != [(True,)]:
            where = f"{self._address.server} (arena_database = own would create it)"
            raise ControlFailure(f"there is no role {name} on {where}", "42704")

    def _usable(self, login: _Login) -> _Login:
        """Return a login for the app's role, or None if the app must use pytest-arena's login."""
        if login is None or self._is_off or login.user in {self._address.user, PAST_POLICIES}:
            return None
        if login.user not in self._logins:
            try:
                self._logins[login.user] = self._ensure_login(login), ""
            except ControlFailure as error:
                self._logins[login.user] = None, error.first_line
        return self._logins[login.user][0]

    def _ensure_login(self, login: ServerLogin) -> ServerLogin:
        self._ensure_role(login.user)
        if self._is_private:
            return ServerLogin(login.user)
        if self._registry.control.rows("SHOW is_superuser") != [("on",)]:
            raise ControlFailure(f"{self._address.user} is no superuser, and cannot give it rights")
        with closing(open_control(self._address.as_(login))):
            return login

    # The owner of a database's objects

    def begin(self, database: Database) -> Callable[[str | None], str]:
        """Choose the database's first login. Return the function that makes it the owner.

        The function writes the script for a template, "" if the owner stays.
        """
        first = self._usable(database.login)
        self._first[database] = first
        return partial(self._owner_script, first)

    def _owner_script(self, login: _Login, template: str | None) -> str:
        if login is None:
            return ""
        if template and self._has_rights(login, template, _ITSELF):
            return ""
        return _CHANGE_OWNER.format(user=literal(login.user))

    def _has_rights(self, login: ServerLogin, database: str, role_condition: str) -> bool:
        """Return whether a role has grants, policies or objects in a database."""
        question = _HAS_RIGHTS.format(
            database=literal(database),
            role_condition=role_condition.format(user=literal(login.user)),
        )
        with self._registry.reporting("grants cannot be read"):
            return self._registry.control.rows(question) == [(True,)]

    # Connections

    def login_of(self, database: Database, login: _Login, live: Address) -> _Login:
        """Return the role for a connection with a login of the app. None: pytest-arena's login."""
        if login is not None and login.user == PAST_POLICIES:
            return None
        first = self._first.get(database)
        if login is None or (first and first.user == login.user):
            return first
        key = database, login.user
        if key not in self._others:
            self._others[key] = self._login_of_other(login, first, live)
        return self._others[key]

    def _login_of_other(self, login: ServerLogin, first: _Login, live: Address) -> _Login:
        usable = self._usable(login)
        if usable is None:
            self.note_inactive_rights(login, live)
        elif not self._has_rights(login, live.database, _WITH_GROUPS):
            self._core.ledger.note(
                f"the schema grants nothing to {login.user}, which works as "
                f"{(first or self._address).user} in tests. Next: GRANT … TO it in the schema"
            )
            return first
        return usable

    def note_inactive_rights(self, login: _Login, live: Address) -> None:
        """Note the policies and grants that do not act for a login of the app."""
        user = (self._usable(login) or self._address).user
        because = ""
        if login:
            _, reason = self._logins.get(login.user, (None, ""))
            because = f". It cannot work as {login.user}: {reason}" if reason else ""
        reporting = self._registry.reporting("the policies cannot be read")
        with reporting, closing(open_control(live)) as control:
            inactive = control.rows(_INACTIVE.format(user=literal(user)))
        if inactive:
            tables = ", ".join(name for name, _ in inactive)
            self._core.ledger.note(
                f"policies do not act on {tables}: the app works as {user}, which "
                f"{inactive[0][1]}{because}"
            )
        elif login and because and self._has_rights(login, live.database, _ITSELF):
            self._core.ledger.note(
                f"grants to {login.user} do not act as in production: the app works as {user}, "
                f"which has all rights{because}. Next: {_USE_ROLE}"
            )


_USE_ROLE = "arena_database = own, or the URL of a superuser"
# Conditions for the roles to which a schema grants rights.
_ITSELF = "r.rolname = {user}"
_WITH_GROUPS = """pg_catalog.pg_has_role(
    (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = {user}), r.oid, 'USAGE')"""
# This catalog of the server has all rights, owners and policies of its databases.
_HAS_RIGHTS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_shdepend s
    JOIN pg_catalog.pg_database d ON d.oid = s.dbid AND d.datname = {database}
    JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND {role_condition}
    WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass)
"""
_INACTIVE = """
SELECT c.oid::pg_catalog.regclass::text,
    CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS'
    ELSE 'owns the tables, without FORCE ROW LEVEL SECURITY' END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.rolname = {user} CROSS JOIN LATERAL (
    SELECT r.rolsuper OR r.rolbypassrls OR NOT c.relforcerowsecurity
    AND pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE') AS is_free) s
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND s.is_free ORDER BY 1
"""
# Makes the role the owner of all objects, except those of extensions. The sequence of a column
# follows its table. The database keeps its owner, which marks it as pytest-arena's. pytest-arena's
# login gets the role's search_path, which the app's functions need.
_CHANGE_OWNER = """
DO $arena$ DECLARE change text; BEGIN
    FOR change IN
        SELECT format('ALTER %s %s OWNER TO %I',
            regexp_replace(i.type, 'function|procedure|aggregate', 'routine'), i.identity, {user})
        FROM (SELECT 'pg_class'::regclass AS kind, oid, relowner AS owner FROM pg_class c
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f') OR relkind = 'S' AND NOT EXISTS (SELECT
                FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
                AND deptype IN ('a', 'i'))
            UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc
            UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type WHERE typtype = ANY (
                '{{e,d,r}}') OR (SELECT relkind FROM pg_class c WHERE c.oid = typrelid) = 'c'
            UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace
            WHERE nspname !~ '^pg_'
            ) o CROSS JOIN LATERAL pg_identify_object(o.kind, o.oid, 0) i
        WHERE o.oid >= 16384 AND o.owner = current_user::regrole AND NOT EXISTS (SELECT
            FROM pg_depend WHERE classid = o.kind AND objid = o.oid AND deptype = 'e')
        UNION ALL SELECT format('GRANT ALL ON DATABASE %I TO %I', current_database(), {user})
        UNION ALL SELECT format('ALTER SCHEMA public OWNER TO %I', {user})
        WHERE to_regnamespace('public') IS NOT NULL
        UNION ALL (SELECT format('ALTER ROLE CURRENT_USER IN DATABASE %I SET search_path TO %s',
            current_database(), replace(substr(pair, 13), '"$user"', quote_ident({user})))
        FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) pair WHERE s.setdatabase IN (
            0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND s.setrole = to_regrole(quote_ident({user})) AND pair ~ '^search_path=.*[[:alnum:]]'
        ORDER BY s.setdatabase DESC LIMIT 1)
    LOOP EXECUTE change; END LOOP;
END $arena$
"""
