"""PostgreSQL: drivers, servers, isolation."""

from pytest_arena._values import ProductFacts

FACTS = ProductFacts(
    shown="PostgreSQL",
    drivers=("asyncpg", "psycopg", "psycopg2", "psycopg_pool"),
    clients=(
        "psql",
        "pgcli",
        "pgbench",
        "pg_dump",
        "pg_dumpall",
        "pg_restore",
        "createdb",
        "dropdb",
        "createuser",
        "dropuser",
        "vacuumdb",
        "reindexdb",
        "clusterdb",
    ),
)
