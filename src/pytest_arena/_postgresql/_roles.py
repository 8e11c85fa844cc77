"""As whom does the app work on a server? As a role like its own, with what the schema gives it."""

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
from pytest_arena._postgresql._templates import derived
from pytest_arena._postgresql.registry._registry_run import TURNS
from pytest_arena._values import PAST_POLICIES, Address, ServerLogin
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._product import Core, Database

    _Login: TypeAlias = (
        ServerLogin | None
    )  # None: arena's own, or that nobody has named one


class Roles:
    """The roles of one server that the app's connections work as.

    On a server that arena has started they have the very names that the app's engines name, are
    made where they are missing, and stay. On any other server those are used that are there.

    The first login of a database owns what the schema's builder has made, unless the schema grants
    something to the login itself: then, as any other one, it has what it was granted, and no more.
    Groups do not count for the first: it may be in them for the sake of SET ROLE.
    """

    def __init__(self, core: Core, own: ServerRegistry, *, is_private: bool) -> None:
        self._core = core
        self._own = own
        self._is_private = is_private
        self._ours = own.address_of()
        self._names = core.config.roles
        self._is_off = self._names == ("off",)
        self._found: dict[
            str, tuple[_Login, str]
        ] = {}  # by users; why it cannot be had
        self._first: dict[Database, _Login] = {}
        self._entered: dict[tuple[Database, str], _Login] = {}

    # Before a template is built

    def prepare(self) -> None:
        """Have the roles there that a schema may grant something to.

        Raises:
            ConfigError: ``arena_roles`` names one that is not there and cannot be made.
        """
        for name in () if self._is_off else self._names:
            try:
                self._make(name, "")
            except ControlFailure as error:
                raise ConfigError(
                    f"arena_roles names {name}, which cannot be had: {error.first_line}",
                    why="arena makes roles on a private server alone: they are the whole server's",
                    cause=self._core.config.places["roles"],
                    fix=f"CREATE ROLE {identifier(name)};   or arena_database = own",
                ) from error
        for user in sorted(self._core.requested()[1]) if self._is_private else ():
            self._usable(ServerLogin(user))

    def _make(self, name: str, attribute: str = "LOGIN") -> None:
        """Make a role, on a private server alone: those of others are looked at."""
        is_there = (
            f"EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(name)})"
        )
        if self._is_private:
            role = f"ROLE {identifier(name)} {attribute}"
            make = (
                f"BEGIN PERFORM pg_catalog.pg_advisory_xact_lock({TURNS}, 0); "
                f"IF {is_there} THEN ALTER {role}; ELSE CREATE {role}; END IF; END"
            )
            with self._own.writes.one():
                self._own.control.run(f"DO {literal(make)}")
        elif self._own.control.rows(f"SELECT {is_there}") != [(True,)]:
            where = f"{self._ours.server} (arena_database = own would make it)"
            raise ControlFailure(f"there is no role {name} on {where}")

    def _usable(self, login: _Login) -> _Login:
        """Return the login by which the app can work as its own role; None for arena's own."""
        if login is None or self._is_off:
            return None
        if login.user in {self._ours.user, PAST_POLICIES}:
            return None
        if login.user not in self._found:
            try:
                self._found[login.user] = self._looked_for(login), ""
            except ControlFailure as error:
                self._found[login.user] = None, error.first_line
        return self._found[login.user][0]

    def _looked_for(self, login: ServerLogin) -> ServerLogin:
        self._make(login.user)
        if self._is_private:
            return ServerLogin(login.user)
        if self._own.control.rows("SHOW is_superuser") != [("on",)]:
            raise ControlFailure(
                f"{self._ours.user} is no superuser, and can give it nothing"
            )
        with closing(open_control(self._ours.as_(login))):
            return login

    # A database, and who owns what is in it

    def begin(self, database: Database) -> Callable[[str | None], str | None]:
        """Choose its first login; return what gives that its own, in a template."""
        first = self._first[database] = self._usable(database.login)
        return partial(self._given, first)

    def _given(self, login: _Login, template: str | None) -> str | None:
        if login is None or (
            template and self._is_named(login.user, template, _ITSELF)
        ):
            return template
        if template and self._is_named(login.user, template, _ITS_GROUPS):
            self._core.ledger.note(
                f"{login.user} owns what the schema makes, whatever its groups are granted; next: "
                f"GRANT … TO {identifier(login.user)} itself, or ALTER … OWNER TO it, in the schema"
            )
        script = _GIVE.format(user=literal(login.user))

        def give(address: Address) -> str:
            # The app's own event triggers are for what the app does.
            with closing(
                open_control(address, {"session_replication_role": "replica"})
            ) as control:
                control.run(script)
            return ""

        return derived(
            self._own, template, f"given {login.user} {template or 'empty'}", give
        )

    def _is_named(self, user: str, database: str, which: str) -> bool:
        """Whether a schema grants a role something, by a policy too, or has it own something."""
        question = _NAMED.format(
            database=literal(database), which=which.format(user=literal(user))
        )
        with self._own.saying("grants cannot be read"):
            return self._own.control.rows(question) == [(True,)]

    # Its connections

    def login_of(self, database: Database, login: _Login, live: str) -> _Login:
        """Return as whom a connection works that was to log in; None for arena's own login."""
        if login is not None and login.user == PAST_POLICIES:
            return None
        first = self._first.get(database)
        if login is None or (first and first.user == login.user):
            return first
        key = database, login.user
        if key not in self._entered:
            self._entered[key] = self._another(login, first, live)
        return self._entered[key]

    def _another(self, login: ServerLogin, first: _Login, live: str) -> _Login:
        found = self._usable(login)
        if found is None:
            self.tell_of_policies(login, live)
        elif not self._is_named(login.user, live, _WHAT_IT_HAS):
            self._core.ledger.note(
                f"the schema grants nothing to {login.user}, which works as "
                f"{(first or self._ours).user} in tests; next: GRANT … TO it in the schema"
            )
            return first
        return found

    def policed(self, database: Database) -> str:
        """Write the query of the tables of a database on which policies act for the app."""
        entered = (
            one for (known, _), one in self._entered.items() if known is database
        )
        logins = [self._first.get(database), *entered]
        return _ACTING.format(
            users=", ".join(literal((one or self._ours).user) for one in logins)
        )

    def policed_for_arena(self) -> str:
        """Return the query for the tables whose policies limit arena's login."""
        return _ACTING.format(users=literal(self._ours.user))

    def tell_of_policies(self, login: _Login, live: str) -> None:
        """Tell which tables' policies do not act for whoever asks for a login."""
        user = (self._usable(login) or self._ours).user
        saying = self._own.saying("the policies cannot be read")
        with saying, closing(open_control(self._own.address_of(live))) as control:
            idle = control.rows(_IDLE.format(users=literal(user)))
        if idle:
            names = ", ".join(name for name, _ in idle)
            told = f"policies do not act on {names}: the app works as {user}, which {idle[0][1]}"
            if login and (reason := self._found.get(login.user, ("", ""))[1]):
                told += f"; as {login.user} it cannot: {reason}"
            self._core.ledger.note(told)


# Which roles count, of those that a schema names. A superuser has the rights of all.
_ITSELF = "r.rolname = {user}"
_WHAT_IT_HAS = "pg_catalog.pg_has_role({user}, r.oid, 'USAGE')"
_IS_LIMITED = "{user} NOT IN (SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper)"
_ITS_GROUPS = f"{_WHAT_IT_HAS} AND {_IS_LIMITED}"
# All rights, owners and policies of a database stand in one catalog of the server's.
_NAMED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_shdepend s
    JOIN pg_catalog.pg_database d ON d.oid = s.dbid AND d.datname = {database}
    JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND {which}
    WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass)
"""
_POLICED = """
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.rolname IN ({users}) CROSS JOIN LATERAL (
    SELECT r.rolsuper OR r.rolbypassrls OR NOT c.relforcerowsecurity
    AND pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE') AS is_free) s
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND
"""
_ACTING = f"SELECT DISTINCT c.oid::pg_catalog.regclass::text {_POLICED} NOT s.is_free ORDER BY 1"
_IDLE = f"""
SELECT c.oid::pg_catalog.regclass::text,
    CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS'
    ELSE 'owns what they are on, without FORCE ROW LEVEL SECURITY' END
{_POLICED} s.is_free ORDER BY 1
"""
# As if the app had made it. An extension's things stay its own, a column's sequence goes with its
# table. The database is known as arena's by its owner: rights on it are granted. Arena's own login
# has the role's search_path there: the app's functions find what they name by it.
_GIVE = """
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
            UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata
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
