"""What a PostgreSQL server is told and asked about databases that are copied whole."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._postgresql._control import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Settings",
    "allow_connections",
    "backends",
    "clone_settings",
    "create",
    "drop",
    "end_backend",
    "end_backends",
    "facts",
    "file_copy_method",
    "prepared",
    "rollback_prepared",
    "sequences",
    "settings",
    "source_facts",
    "unset_template",
    "waits_or_works",
]


class Settings(NamedTuple):
    """What belongs to a database and is not copied with it."""

    limit: int
    rights: list[list[str]] | None  # grantee, right, "t" where it may be passed on; None: usual
    values: list[list[str]]  # role or "", name=value
    owner: str


def create(name: str, template: str | None, *, strategy: str = "") -> str:
    """Write the statement that copies a database; an empty one is UTF-8, whatever the server."""
    source = f"TEMPLATE {identifier(template)}" if template else "TEMPLATE template0"
    ways = f" STRATEGY {strategy}" if strategy else ""
    return f"CREATE DATABASE {identifier(name)} {source}{ways}" + (
        "" if template else " ENCODING 'UTF8'"
    )


def file_copy_method(method: str) -> str:
    """How files are copied by this session, since PostgreSQL 18."""
    return f"SET file_copy_method = {method}"


def drop(name: str) -> str:
    """Drop a database, whoever is connected."""
    return f"DROP DATABASE {identifier(name)} WITH (FORCE)"


def unset_template(name: str) -> str:
    """Take the mark off that keeps a template from being dropped."""
    return f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false"


def allow_connections(name: str, *, allowed: bool) -> str:
    """Let nobody in, or everybody again."""
    return f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS {str(allowed).lower()}"


def backends(name: str) -> str:
    """Ask who is connected to a database."""
    return (
        "SELECT pid, coalesce(usename::text, ''), coalesce(application_name, '') "
        f"FROM pg_stat_activity WHERE datname = {literal(name)} ORDER BY pid"
    )


def end_backends(name: str) -> str:
    """End all connections to a database; a row for each that still has to go."""
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = {literal(name)} AND pid <> pg_backend_pid()"
    )


def end_backend(name: str, pid: int, *, cancel: bool = False) -> str:
    """End one connection, or what it is doing, if it is one to this database."""
    how = "pg_cancel_backend" if cancel else "pg_terminate_backend"
    return (
        f"SELECT {how}(pid) FROM pg_stat_activity "
        f"WHERE datname = {literal(name)} AND pid = {pid} AND pid <> pg_backend_pid()"
    )


def waits_or_works(name: str) -> str:
    """Ask whether a client is inside a transaction, whether or not it has written anything."""
    return (
        "SELECT pid FROM pg_stat_activity "
        f"WHERE datname = {literal(name)} AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend' AND EXISTS (SELECT FROM pg_locks l "
        "WHERE l.pid = pg_stat_activity.pid AND l.locktype = 'virtualxid' "
        "AND l.mode = 'ExclusiveLock')"
    )


def facts(name: str) -> str:
    """Ask what tells whether a database was written to: one round trip."""
    return f"SELECT open, held, horizon FROM arena.facts({literal(name)})"


def sequences() -> str:
    """Ask, in a database, where all its sequences stand: "" for none, NULL if that is hidden.

    ``nextval`` takes numbers without a transaction id and without a record in the log, 31 times
    of 32.
    """
    can_read = "has_sequence_privilege(c.oid, 'USAGE, SELECT')"
    return (
        f"SELECT CASE WHEN count(*) FILTER (WHERE NOT {can_read}) = 0 THEN "
        "coalesce(md5(string_agg(c.oid || ':' || coalesce(v.value, ''), ',' ORDER BY c.oid)), '') "
        "END FROM pg_catalog.pg_class c LEFT JOIN LATERAL (SELECT "
        f"CASE WHEN {can_read} THEN pg_catalog.pg_sequence_last_value(c.oid)::text END AS value) v "
        "ON true WHERE c.relkind = 'S' AND c.relpersistence <> 't'"
    )


def prepared() -> str:
    """Ask, in a database, for the transactions that were prepared there."""
    return "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"


def rollback_prepared(gid: str) -> str:
    """Undo one of them."""
    return f"ROLLBACK PREPARED {literal(gid)}"


def source_facts(name: str) -> str:
    """Ask how large a database is, whether writes are synced, and how files are copied best."""
    return f"SELECT pg_database_size({literal(name)}), current_setting('fsync') = 'on'"


def settings(name: str) -> str:
    """Ask for what TEMPLATE does not copy."""
    return (
        "SELECT d.datconnlimit, CASE WHEN d.datacl IS NOT NULL THEN ARRAY(SELECT "
        "ARRAY[coalesce(r.rolname::text, ''), a.privilege_type, left(a.is_grantable::text, 1)] "
        "FROM aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee "
        "WHERE a.grantee = 0 OR r.oid IS NOT NULL) END, "
        "ARRAY(SELECT ARRAY[coalesce(r.rolname::text, ''), v] FROM pg_db_role_setting s "
        "LEFT JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) v "
        "WHERE s.setdatabase = d.oid AND (s.setrole = 0 OR r.oid IS NOT NULL)), "
        "pg_get_userbyid(d.datdba)::text "
        f"FROM pg_database d WHERE d.datname = {literal(name)}"
    )


def clone_settings(name: str, found: Settings) -> str:
    """Write all that gives a copy the settings of its source, "" for nothing."""
    return "; ".join([*_limit(name, found), *_rights(name, found), *_values(name, found)])


def _limit(name: str, found: Settings) -> Iterator[str]:
    if found.limit >= 0:
        yield f"ALTER DATABASE {identifier(name)} WITH CONNECTION LIMIT {found.limit}"


def _rights(name: str, found: Settings) -> Iterator[str]:
    if found.rights is None:
        return
    on = f"ON DATABASE {identifier(name)}"
    yield f"REVOKE ALL {on} FROM PUBLIC, {identifier(found.owner)}"
    for grantee, right, grantable in found.rights:
        to = identifier(grantee) if grantee else "PUBLIC"
        option = " WITH GRANT OPTION" if grantable == "t" and grantee else ""
        yield f"GRANT {right} {on} TO {to}{option}"


def _values(name: str, found: Settings) -> Iterator[str]:
    for role, pair in found.values:
        key, _, value = pair.partition("=")
        whose = f"ROLE {identifier(role)} IN " if role else ""
        shown = ", ".join(map(literal, _parts(key, value)))
        yield f"ALTER {whose}DATABASE {identifier(name)} SET {identifier(key)} TO {shown}"


# As in pg_dump: the values of these are lists of quoted names, of all others one text.
_LISTS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)


def _parts(key: str, value: str) -> list[str]:
    if key.lower() not in _LISTS:
        return [value]
    found = re.findall(r'"((?:[^"]|"")*)"|([^,\s]+)', value)
    return [quoted.replace('""', '"') or plain for quoted, plain in found] or [""]
