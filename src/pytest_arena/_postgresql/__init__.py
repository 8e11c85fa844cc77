"""PostgreSQL: drivers, servers, isolation."""

from pytest_arena._facts import ProductFacts

# In the order of preference if no engine shows the app's driver.
DRIVERS = ("asyncpg", "psycopg", "psycopg2")
FACTS = ProductFacts(
    name="postgresql",
    shown="PostgreSQL",
    isolations=("undo", "clone", "rollback"),
    drivers=DRIVERS,
    sqlstates={
        "25006": "read only",  # read_only_sql_transaction
        "42P01": "no table",  # undefined_table
        "53300": "no connection",  # too_many_connections
        "55P03": "lock timeout",  # lock_not_available
    },
    # For a refused login, libpq reports the server's text without the SQLSTATE.
    error_words={
        "too many clients": "no connection",
        "too many connections": "no connection",
        "connection slots are reserved": "no connection",
    },
    other_url="postgres://",
    example_url="postgresql://postgres@localhost:5432/postgres",
    drivers_without_loop=("psycopg",),
    maintenance_database="postgres",
)
