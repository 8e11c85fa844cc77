"""MySQL and MariaDB: drivers, servers, isolation."""

from pytest_arena._facts import ProductFacts

# In the order of preference if no engine shows the app's driver.
ASYNC_DRIVERS = ("asyncmy", "aiomysql")
FACTS = ProductFacts(
    name="mysql",
    shown="MySQL",
    other_dialects=("mariadb",),
    isolations=("undo", "clone"),
    drivers=(*ASYNC_DRIVERS, "pymysql", "MySQLdb"),
    # Drivers' errors begin with the server's number. Their classes have no SQLSTATE.
    error_words={
        "(1205,": "lock timeout",
        "(1792,": "read only",
        "(1146,": "no table",
        "(1040,": "no connection",
        "(1203,": "no connection",
        "(1226,": "no connection",
    },
    example_url="mysql://root@localhost:3306/",
    maintenance_database="mysql",
)
