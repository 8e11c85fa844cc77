"""Writes the SQL that copies databases."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from pytest_arena._postgresql._control import identifier, literal

_COPY = "the copy"
COPY = identifier(_COPY)  # the copy's name in the statements of `source`


def source(name: str) -> str:
    """Write the query for a database's size, for fsync, and for the statements that adapt a copy.

    PostgreSQL does not copy the rights and the settings of a database. The statements set them in
    the copy. They also switch off ``synchronous_commit``, so that no
    commit in the copy waits for the disk. The column is NULL if the copy needs no statement. As
    in pg_dump, the values of some settings are lists of quoted names.
    """
    return f"""
WITH d AS (SELECT * FROM pg_database WHERE datname = {literal(name)}),
pairs AS (
    SELECT coalesce('ROLE ' || quote_ident(r.rolname) || ' IN ', '') AS whose,
        split_part(pair, '=', 1) AS key, substr(pair, strpos(pair, '=') + 1) AS value
    FROM d JOIN pg_db_role_setting s ON s.setdatabase = d.oid
    LEFT JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) pair
    WHERE s.setrole = 0 OR r.oid IS NOT NULL),
statements (turn, statement) AS (
    SELECT 0, format('ALTER DATABASE %I SET synchronous_commit TO off', '{_COPY}')
    FROM pg_settings WHERE name = 'synchronous_commit' AND reset_val <> 'off'
    UNION ALL
    SELECT 1, format('REVOKE ALL ON DATABASE %I FROM PUBLIC, %I', '{_COPY}',
        pg_get_userbyid(datdba)) FROM d WHERE datacl IS NOT NULL
    UNION ALL
    SELECT 2, format('GRANT %s ON DATABASE %I TO %s', a.privilege_type, '{_COPY}',
        coalesce(quote_ident(r.rolname)
            || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, 'PUBLIC'))
    FROM d, aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee = 0 OR r.oid IS NOT NULL
    UNION ALL
    SELECT 3, format('ALTER %sDATABASE %I SET %I TO %s', whose, '{_COPY}', key,
        CASE WHEN lower(key) IN ('local_preload_libraries', 'search_path',
            'session_preload_libraries', 'temp_tablespaces', 'unix_socket_directories')
        THEN (SELECT coalesce(string_agg(
                quote_literal(coalesce(replace(part[1], '""', '"'), part[2])), ', '), '''''')
            FROM regexp_matches(value, '"((?:[^"]|"")*)"|([^,\\s]+)', 'g') part)
        ELSE quote_literal(value) END) FROM pairs)
SELECT pg_database_size({literal(name)}), current_setting('fsync') = 'on',
    (SELECT string_agg(statement, '; ' ORDER BY turn) FROM statements)
"""


def allow_connections(name: str, *, allowed: bool) -> str:
    """Write the statement that allows or forbids connections."""
    return f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS {str(allowed).lower()}"


def end_backends(name: str) -> str:
    """Write the query that ends all connections to a database, with a row for each."""
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = {literal(name)} AND pid <> pg_backend_pid()"
    )


def clients_inside(name: str) -> str:
    """Write the query for the clients inside a transaction, also without a write.

    Each transaction has a virtual id.
    """
    return (
        "SELECT DISTINCT pid FROM pg_stat_activity JOIN pg_locks USING (pid) "
        f"WHERE datname = {literal(name)} AND backend_type = 'client backend' "
        "AND locktype = 'virtualxid' AND mode = 'ExclusiveLock' AND pid <> pg_backend_pid()"
    )
