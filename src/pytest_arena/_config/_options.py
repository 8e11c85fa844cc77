"""All options: their names, values and help."""

from dataclasses import dataclass

from pytest_arena._config._supported import NAMES


@dataclass(frozen=True, slots=True)
class Option:
    """One option: ``arena_<name>`` in a file, ``--arena-<name>``, ``ARENA_<NAME>``."""

    name: str
    default: str
    help: str
    example: str
    choices: tuple[str, ...] = ()
    form: str = "text"
    """How its text is parsed: ``text``, ``databases`` (a line ``name = value`` for each), ``list``
    (split at commas and lines), ``words`` (split at blanks too), ``lines``, ``seconds``."""
    metavar: str = "VALUE"
    short: str = ""
    """Another name on the command line."""

    @property
    def many(self) -> bool:
        """Whether pytest's configuration has a list for it."""
        return self.form in {"list", "words", "lines"}

    @property
    def ini(self) -> str:
        """The name in pytest's configuration."""
        return f"arena_{self.name}"

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return f"--arena-{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return f"ARENA_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of one run, on the command line only."""

    name: str
    help: str
    metavar: str = ""
    """The name of its value, "" for a switch. It may be repeated."""
    prefix: str = "--"
    has_no: bool = False
    """Whether the switch has a negative form, ``--no-…``."""

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return f"{self.prefix}{self.name.replace('_', '-')}"


ISOLATIONS = ("auto", "copy", "undo", "clone", "rollback")
KEEPS = ("never", "failed", "always")
DATABASES = ("auto", *NAMES, "own")
DRIVERS = ("refuse", "redirect", "off")
EVIDENCE = ("seeded", "requested", "asserted")

OPTIONS = (
    Option(
        "app",
        "",
        "The web app under test, as package.module:attribute. The attribute is an ASGI app "
        "(FastAPI, Starlette, Litestar, ...), a WSGI app (Flask, ...), or a function that returns "
        "such an app. A WSGI app needs pytest-arena[wsgi]. pytest-arena calls the function once "
        "for each test that uses a client. The fixtures client, client_as, test_client and "
        "test_client_as send requests to the app.",
        "app.main:app",
        metavar="MODULE:NAME",
    ),
    Option(
        "schema",
        "",
        "The source of the tables: package.module:Base, package.module:metadata, "
        "package.module:function, alembic.ini, or a *.sql file. The function creates the "
        "tables. It gets a Connection or no argument. An async function gets an "
        "AsyncConnection. pytest-arena builds the tables once and copies them for each test. "
        "For several databases, write a line 'name = value' for each: name is the database's "
        "name in the app's URL. Without this option, the app must create its tables.",
        "app.models:Base",
        form="databases",
        metavar="SOURCE",
    ),
    Option(
        "seed",
        "",
        "A function that writes the rows for all tests, as package.module:function. The "
        "function gets a Session. An async function gets an AsyncSession. pytest-arena calls "
        "the function once a day, commits the session, and copies the rows for each test. For "
        "several databases, write a line 'name = value' for each, as in arena_schema.",
        "tests.seed:seed",
        form="databases",
        metavar="MODULE:NAME",
    ),
    Option(
        "migrations",
        "warn",
        "Compares the models with the database that the migrations build, if arena_schema is "
        "alembic.ini. warn (default) names the differences at the end of the run. fail also "
        "makes the run fail. off compares nothing.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "login",
        "",
        "A function that logs a client in, as package.module:function. pytest-arena calls the "
        "function with the client and the role. The function may be async. client_as and "
        "test_client_as need this option.",
        "tests.login:log_in",
        metavar="MODULE:NAME",
    ),
    Option(
        "lifespan",
        "on",
        "When the app's lifespan (its start-up and shutdown) runs. on (default) runs it in each "
        "test that uses a client. session runs it once for all tests. off never runs it.",
        "session",
        ("on", "session", "off"),
        metavar="WHEN",
    ),
    Option(
        "lost_writes",
        "warn",
        "Finds lost writes: rows that a request did not commit, and changed objects that a request "
        "did not flush. Requests with a status of 400 or higher do not count. warn (default) "
        "reports the request at the end of the run. fail makes the test fail. off reports the "
        "request only if the test fails for another reason.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "late_commits",
        "warn",
        "Finds requests that the app answered before it committed their rows. warn (default) "
        "reports these requests at the end of the run, and fails the test if the commit fails. "
        "fail always fails the test. off reports the requests only if the test fails for another "
        "reason.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "settle",
        "1",
        "How many seconds a passed test waits at its end for late work: tasks, threads, timers "
        "and jobs that its requests started. After one test has waited in vain, no test waits "
        "again for work of the same line. The default is 1. With 0, no test waits.",
        "5",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "late",
        "warn",
        "Finds late work that fails after the answer, or that still runs arena_settle seconds "
        "after the test. pytest-arena cancels work that still runs. warn (default) reports the "
        "work at the end of the run. fail makes the test fail.",
        "fail",
        ("warn", "fail"),
        metavar="WHAT",
    ),
    Option(
        "lock_timeout",
        "5",
        "How many seconds a statement waits for a lock, for example the lock of a row that the "
        "test wrote and did not commit. After this time the statement fails. The default is 5. "
        "With 0, the database's setting applies. If the app sets lock_timeout, "
        "innodb_lock_wait_timeout or PRAGMA busy_timeout, the app's value applies.",
        "1",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "turn_timeout",
        "30",
        "How many seconds a test process waits while the server has no free connection, or no "
        "memory for a lock. The default is 30. With 0, the process fails at "
        "once.",
        "120",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "isolation",
        "auto",
        "How pytest-arena restores the database after each test. copy (SQLite) restores the "
        "file. undo (PostgreSQL, MySQL) reverses the changes of rows. clone (PostgreSQL, MySQL) "
        "replaces the database by a new copy of the template. rollback (PostgreSQL) lets all "
        "connections share one transaction, which is rolled back. On SQLite, rollback means copy. "
        "auto (default) chooses copy on SQLite, else undo. Where undo does not work, auto chooses "
        "clone.",
        "clone",
        ISOLATIONS,
        metavar="HOW",
    ),
    Option(
        "database",
        "auto",
        "The kind or the server of the test databases. auto (default) uses the kind of the "
        "app's engine. sqlite uses SQLite files. postgresql uses a PostgreSQL server that "
        "pytest-arena finds or starts. mysql and mariadb use such a MySQL or MariaDB server. "
        "own uses a private server of the product that the app's engine uses. A URL names a server "
        "on which pytest-arena may create databases. If the URL's role may not "
        "create databases, arena_isolation = rollback uses the URL's database.",
        "postgresql://postgres@localhost:5432/postgres",
        metavar="WHAT",
    ),
    Option(
        "env",
        "DATABASE_URL",
        "Environment variables that contain the app's database URLs. Before pytest-arena imports "
        "your code, it replaces these URLs. On SQLite the new URL names the test database. On "
        "a server the host in the new URL does not exist, and pytest-arena redirects only the "
        "app's engines. Child processes inherit the variables. If a variable is not set, "
        "pytest-arena sets it before the app first connects. Then the first variable leads to "
        "the app's first database, and any other variable to no database. If a value is not a "
        "URL, the run fails. Default: DATABASE_URL.",
        "SHOP_DATABASE_URL",
        form="list",
        metavar="NAMES",
    ),
    Option(
        "allow",
        "",
        "Databases that tests may reach in addition to test databases. pytest-arena refuses "
        "connections to all others. Each value is a pattern for a file path or for "
        "dialect://host:port/name.",
        "/srv/maps/*.sqlite",
        form="list",
        metavar="PATTERNS",
    ),
    Option(
        "roles",
        "",
        "PostgreSQL roles that need rights in the schema, in addition to the users in the URLs "
        "of the app's engines. pytest-arena creates these roles on a private server. On another "
        "server they must exist. With the value off, the app connects as the role with which "
        "pytest-arena logs in, instead of the role in its URL. On MySQL this option has no effect.",
        "shop_readers",
        form="words",
        metavar="NAMES",
    ),
    Option(
        "drivers",
        "refuse",
        "Applies to connections that your code opens by a driver of PostgreSQL or MySQL, without "
        "an SQLAlchemy engine. refuse (default) refuses the connection, unless it leads to a test "
        "database. redirect opens the test's database instead. off allows all connections.",
        "redirect",
        DRIVERS,
        metavar="WHAT",
    ),
    Option(
        "keep",
        "never",
        "Keeps a copy of a test's database, and prints how to open the copy. never (default) "
        "keeps no copy. failed keeps the databases of failed tests. always keeps the databases "
        "of all tests.",
        "failed",
        KEEPS,
        metavar="WHEN",
    ),
    Option(
        "mask",
        "",
        "Columns whose values pytest-arena hides in reports. Each item is a pattern for "
        "table.column. A pattern without a dot applies to the columns of all tables. "
        "pytest-arena always hides columns with the name of a secret, such as password, token, "
        "secret, api_key or hash.",
        "patients.*",
        form="list",
        metavar="PATTERNS",
    ),
    Option(
        "specs",
        "",
        "The specifications with your Gherkin scenarios: files, folders, or patterns such as "
        "docs/**/*.md. A *.feature file contains Gherkin. A *.feature.md file contains Gherkin "
        "in headings and lists. Other files are Markdown with gherkin blocks. Without this "
        "option, @pytest.mark.scenario does nothing.",
        "docs/specs",
        form="list",
        metavar="PATHS",
    ),
    Option(
        "scenarios",
        "report",
        "How pytest-arena uses the scenarios of arena_specs. report (default) lists the "
        "unproven scenarios at the end of the run. strict also makes the run fail if an unproven "
        "scenario is neither waived nor in the baseline. off reads no scenarios.",
        "strict",
        ("off", "report", "strict"),
        metavar="HOW",
        short="--scenarios",
    ),
    Option(
        "scenario_evidence",
        "seeded, requested, asserted",
        "The evidence that proves a scenario, in addition to a passed test. seeded: the test or "
        "its fixtures wrote rows before the first request (only for scenarios with a Given). "
        "requested: a request reached the app. asserted: an assertion passed after the last "
        "request.",
        "asserted",
        EVIDENCE,
        form="words",
        metavar="NAMES",
    ),
    Option(
        "scenario_lock",
        "scenarios.lock",
        "The file with the accepted steps of scenarios. `arena scenarios accept` writes this "
        "file. If the steps of a scenario change, the scenario is DRIFTED. Default: "
        "scenarios.lock, if it exists.",
        "specs/scenarios.lock",
        metavar="PATH",
    ),
    Option(
        "scenario_baseline",
        "",
        "The file that lists unproven scenarios, with a line for each, such as 'UNMAPPED  "
        "Orders :: A customer pays'. A strict run accepts these scenarios. When a scenario is "
        "proven, remove its line.",
        "scenarios.baseline",
        metavar="PATH",
    ),
    Option(
        "scenario_waive",
        "",
        "Scenarios that need no test until a date. Write a line for each scenario: a tag or a "
        "key (Feature :: scenario), the last day, and the reason.",
        "@manual 2027-03-31 tried by hand before each release",
        form="lines",
        metavar="LINES",
    ),
)
FLAGS = (
    Flag(
        "scenario",
        "Run only the tests of one scenario. KEY is the scenario's name, 'Feature :: name', or "
        "a tag such as @BTL-3.",
        metavar="KEY",
    ),
    Flag(
        "scenarios_out",
        "Write the results of the scenarios to files: json:PATH, html:PATH, md:PATH, "
        "messages:PATH. Commas separate several files.",
        metavar="FORM:PATH",
    ),
    Flag(
        "scenarios_sabotage",
        "Repeat each test of a proven scenario, with one fault at a time, then without a fault. "
        "pytest-arena removes the rows of the test and its fixtures, undoes the app's last "
        "commit, disables PostgreSQL's policies, empties the response's body, or changes its "
        "status to 500. If the test passes in spite of a fault, the scenario is HOLLOW. By default "
        "this option is on only if scenarios are strict and the variable CI is set.",
        has_no=True,
    ),
    # ARENA_<NAME> sets these too, unless its value is empty, 0, no, off or false.
    Flag(
        "rebuild",
        "Build the templates again, even if arena_schema and arena_seed have not changed.",
        prefix="--arena-",
    ),
    Flag(
        "verify",
        "Compare each database before and after each test. If pytest-arena did not undo a change "
        "of the test, the test fails. pytest-arena reads each database twice for each test, and "
        "twice for each fixture with a wider scope than function.",
        prefix="--arena-",
    ),
)
