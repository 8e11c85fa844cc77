"""All options: their names, values and help."""

from __future__ import annotations

from dataclasses import dataclass


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


# The values of this version. Values of a later version are refused with another message.
ISOLATIONS = ("auto", "copy", "undo", "clone")
KEEPS = ("never", "failed", "always")
DATABASES = ("auto", "sqlite", "postgresql", "own")
DRIVERS = ("refuse", "redirect", "off")
LATER = ("rollback", "mysql", "mariadb")
EVIDENCE = ("seeded", "requested", "asserted")

OPTIONS = (
    Option(
        "app",
        "",
        "The web app under test, as package.module:attribute. It is an ASGI app (FastAPI, "
        "Starlette, Litestar, ...), a WSGI app (Flask, ..., with pytest-arena[wsgi]), or a "
        "function that returns such an app. pytest-arena calls the function once for each test "
        "that uses a client. The fixtures client, client_as, test_client and test_client_as send "
        "requests to the app.",
        "app.main:app",
        metavar="MODULE:NAME",
    ),
    Option(
        "schema",
        "",
        "The source of the tables: package.module:Base (or :metadata), alembic.ini, a *.sql "
        "file, or package.module:function. The function gets a Connection (an AsyncConnection, "
        "if it is async) or no argument. pytest-arena builds the tables once and copies them for "
        "each test. For several databases, write a line 'name = value' for each database. Without "
        "this option, the app must create its tables.",
        "app.models:Base",
        form="databases",
        metavar="SOURCE",
    ),
    Option(
        "seed",
        "",
        "The rows that every test starts with, as package.module:function. The function gets a "
        "Session (an AsyncSession, if it is async) and need not commit. pytest-arena calls the "
        "function once and copies the rows for each test. For several databases, write a line "
        "'name = value' for each database.",
        "tests.seed:seed",
        form="databases",
        metavar="MODULE:NAME",
    ),
    Option(
        "migrations",
        "warn",
        "Compares the models with the database that the migrations build, if arena_schema is "
        "alembic.ini. If they differ, warn (default) names the differences at the end of the run. "
        "fail names them and makes the run fail. off compares nothing.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "login",
        "",
        "Logs a client in: package.module:function(client, role), sync or async. client_as and "
        "test_client_as need it.",
        "tests.login:log_in",
        metavar="MODULE:NAME",
    ),
    Option(
        "lifespan",
        "on",
        "When the app's start-up and shutdown (its lifespan) run: on (default) in each test that "
        "uses a client, session once for all tests, off never.",
        "session",
        ("on", "session", "off"),
        metavar="WHEN",
    ),
    Option(
        "lost_writes",
        "warn",
        "Finds requests that the app answered with a status below 400 without committing their "
        "rows, or without flushing changed objects. warn (default) reports them at the end of "
        "the run. fail makes the test fail. off reports them only if the test fails for another "
        "reason.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "late_commits",
        "warn",
        "Finds requests that the app answered before it committed their writes. FastAPI does "
        "this if a dependency commits after its yield. warn (default) names them at the end of the "
        "run, and fails the test if the commit fails. fail always fails the test. off names them "
        "only in the report of a failed test.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "settle",
        "1",
        "How many seconds a passed test waits at its end for work that its requests started: "
        "tasks, threads, timers, jobs of pools. The default is 1. With 0, it does not wait. A "
        "test without such work never waits.",
        "5",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "late",
        "warn",
        "Finds tests whose requests started work that fails after the answer, or that still runs "
        "after arena_settle and is cancelled. warn (default) reports them at the end of "
        "the run. fail makes the test fail.",
        "fail",
        ("warn", "fail"),
        metavar="WHAT",
    ),
    Option(
        "lock_timeout",
        "5",
        "How many seconds a statement waits for a lock, for example of a row that the test wrote "
        "and did not commit. Then the statement fails, and the error names the lines of code that "
        "wait for the lock and that hold it. "
        "The default is 5. With 0, the database's setting applies. A PRAGMA busy_timeout or a "
        "lock_timeout that the app sets overrides it.",
        "1",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "turn_timeout",
        "30",
        "How many seconds a process waits if other runs use all connections or locks of the "
        "server. The default is 30. With 0, it fails at once.",
        "120",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "isolation",
        "auto",
        "How pytest-arena restores the database after each test. copy (SQLite) restores the "
        "file. undo (PostgreSQL) undoes the changes of rows. clone (PostgreSQL) copies the "
        "template again. auto (default) is copy on SQLite and undo on PostgreSQL, or clone if "
        "the rights or the schema do not allow undo.",
        "clone",
        ISOLATIONS,
        metavar="HOW",
    ),
    Option(
        "database",
        "auto",
        "The kind of the test databases, or their server. auto (default) is the kind that the "
        "app's engine uses. sqlite is SQLite files. postgresql is a PostgreSQL server that "
        "pytest-arena finds or starts. own is a private PostgreSQL server. A URL names a server "
        "on which pytest-arena may create databases. A test that uses a database before the app "
        "creates an engine needs another value than auto.",
        "postgresql://postgres@localhost:5432/postgres",
        metavar="WHAT",
    ),
    Option(
        "env",
        "DATABASE_URL",
        "Environment variables that hold the app's database URLs. A value that is no URL, such as "
        "a path, is an error. pytest-arena changes each variable to the URL of a test database "
        "before it imports your code. When the app first connects, pytest-arena also sets "
        "the variables that were not set, because child processes may read them. The first "
        "variable of the option gets the URL of the app's first database. The others get a URL "
        "that is refused. Default: DATABASE_URL.",
        "SHOP_DATABASE_URL",
        form="list",
        metavar="NAMES",
    ),
    Option(
        "allow",
        "",
        "Databases that tests may reach beside the test databases. pytest-arena refuses all "
        "others. "
        "The values are patterns over a file path or over dialect://host:port/name.",
        "/srv/maps/*.sqlite",
        form="list",
        metavar="PATTERNS",
    ),
    Option(
        "roles",
        "",
        "PostgreSQL roles to which the schema grants rights, beside the users of the app's "
        "engines. pytest-arena creates them on a private server. They must exist on any other "
        "server. With off, the app connects with the login of arena_database, and not as the "
        "user in its URL.",
        "shop_readers",
        form="words",
        metavar="NAMES",
    ),
    Option(
        "drivers",
        "refuse",
        "Connections that asyncpg, psycopg or psycopg2 open without an SQLAlchemy engine. refuse "
        "(default) refuses them if their database is no test database. redirect opens the test's "
        "database instead. off allows all of them.",
        "redirect",
        DRIVERS,
        metavar="WHAT",
    ),
    Option(
        "keep",
        "never",
        "Keeps a copy of a test's database and prints how to open it: never (default), failed "
        "for failed tests, always.",
        "failed",
        KEEPS,
        metavar="WHEN",
    ),
    Option(
        "mask",
        "",
        "Columns whose values no report shows. Columns that are named like a password, token, "
        "secret, key or hash are always hidden. The values are patterns over table.column. A "
        "name without a dot is a column of any table.",
        "patients.*",
        form="list",
        metavar="PATTERNS",
    ),
    Option(
        "specs",
        "",
        "The specifications whose Gherkin scenarios the tests prove: files, folders, or patterns "
        "like docs/**/*.md. *.feature is Gherkin, *.feature.md is Gherkin in headings and lists, "
        "and any other file is Markdown with gherkin blocks. Without this option, "
        "@pytest.mark.scenario does nothing.",
        "docs/specs",
        form="list",
        metavar="PATHS",
    ),
    Option(
        "scenarios",
        "report",
        "How pytest-arena uses the scenarios of arena_specs. report (default) lists the unproven "
        "scenarios at the end of the run. strict also makes the run fail if a scenario is not "
        "proven. off reads no scenarios.",
        "strict",
        ("off", "report", "strict"),
        metavar="HOW",
        short="--scenarios",
    ),
    Option(
        "scenario_evidence",
        "seeded, requested, asserted",
        "The evidence that a passed test needs to prove its scenario. seeded: rows were written "
        "before its first request (only for scenarios with a Given). requested: a request "
        "reached the app. asserted: an assertion passed after the last request.",
        "asserted",
        EVIDENCE,
        form="words",
        metavar="NAMES",
    ),
    Option(
        "scenario_lock",
        "scenarios.lock",
        "The file with the accepted versions of scenarios, which `arena scenarios accept` "
        "writes. A scenario whose steps have changed since then is DRIFTED. Default: "
        "scenarios.lock, if it exists.",
        "specs/scenarios.lock",
        metavar="PATH",
    ),
    Option(
        "scenario_baseline",
        "",
        "The file with known gaps: a line 'STATUS  key' for each. A strict run does not fail "
        "because of them. Remove a line when its gap is closed.",
        "scenarios.baseline",
        metavar="PATH",
    ),
    Option(
        "scenario_waive",
        "",
        "Scenarios that need no test for now. Write a line for each, with a tag or a key "
        "(Feature :: scenario), the "
        "last day of the exception, and the reason.",
        "@manual 2027-03-31 tried by hand before each release",
        form="lines",
        metavar="LINES",
    ),
)
FLAGS = (
    Flag(
        "scenario",
        "Run only the tests of this scenario: its key, its name or its @ID.",
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
        "Run the tests of proven scenarios again. Each time one thing is broken: the seed, the "
        "app's commit, PostgreSQL's policies, the response's body or its status. A test that "
        "still passes is HOLLOW. The default is on if scenarios are strict and CI is set, else "
        "off.",
        has_no=True,
    ),
    # ARENA_<NAME> sets these too, unless its value is empty, 0, no, off or false.
    Flag(
        "rebuild",
        "Build the templates (arena_schema and arena_seed) again once, even if their sources "
        "have not changed.",
        prefix="--arena-",
    ),
    Flag(
        "verify",
        "Read each database before and after each test, and fail the test if its changes were not "
        "undone. This reads all rows and definitions twice for each test, and for each fixture "
        "of a wider scope.",
        prefix="--arena-",
    ),
)
