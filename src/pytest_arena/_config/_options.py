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
        "The web app under test, as package.module:attribute: an ASGI app (FastAPI, Starlette, "
        "Litestar, ...), a WSGI app (Flask, ..., with pytest-arena[wsgi]) or a function that "
        "makes one, called once a test. The fixtures client, "
        "client_as, test_client and test_client_as talk to it.",
        "app.main:app",
        metavar="MODULE:NAME",
    ),
    Option(
        "schema",
        "",
        "Where the tables of an empty database come from: package.module:Base (or :metadata), "
        "alembic.ini, a *.sql file, or package.module:function, which is given a Connection (an "
        "AsyncConnection, if async) or nothing. Built once, then copied for each test. Several "
        "databases: a line 'name = value' for each. Not set: the app makes its tables itself.",
        "app.models:Base",
        form="databases",
        metavar="SOURCE",
    ),
    Option(
        "seed",
        "",
        "The rows that every test starts with: package.module:function, which is given a Session "
        "(an AsyncSession, if async) and need not commit. Run once, then copied for each test. "
        "Several databases: a line 'name = value' for each.",
        "tests.seed:seed",
        form="databases",
        metavar="MODULE:NAME",
    ),
    Option(
        "migrations",
        "warn",
        "Compares the database that the migrations of arena_schema = alembic.ini build with the "
        "models. If they differ, warn (default) names the differences at the end of the run. "
        "fail names them and makes the run fail. off compares nothing.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "login",
        "",
        "How a client logs in: package.module:function(client, role), sync or async. Needed by "
        "client_as and test_client_as.",
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
        "What becomes of a test whose request was answered well (below 400), and the app had "
        "written rows that it never committed, or changed objects that it never flushed: warn "
        "(default) tells it at the end, fail makes the test fail, off tells it in the report of a "
        "failed test alone.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "late_commits",
        "warn",
        "Finds requests that the app answered before it committed their writes, as FastAPI does if "
        "a dependency commits after its yield. warn (default) names them at the end of the run, "
        "and fails the test if the commit fails. fail always fails the test. off names them only "
        "in the report of a failed test.",
        "fail",
        ("warn", "fail", "off"),
        metavar="WHAT",
    ),
    Option(
        "settle",
        "1",
        "How many seconds a test that passed waits at its end for the work that its requests have "
        "begun and that goes on after their answers: tasks, threads, timers, jobs of pools. 1 "
        "(default); 0 waits for nothing. It waits only where something still works.",
        "5",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "late",
        "warn",
        "What becomes of a test whose requests have begun work that has not ended by then, and is "
        "cut off: warn (default) tells it at the end, fail makes the test fail.",
        "fail",
        ("warn", "fail"),
        metavar="WHAT",
    ),
    Option(
        "lock_timeout",
        "5",
        "How many seconds a statement waits for a lock, as of a row that the test has written and "
        "not committed; then the error names both lines. 5 (default); 0: as the database has it.",
        "1",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "turn_timeout",
        "30",
        "How many seconds a process waits for its turn on a server that has no connection or no "
        "lock free, since other runs have them: 30 (default); 0: it fails at once.",
        "120",
        form="seconds",
        metavar="SECONDS",
    ),
    Option(
        "isolation",
        "auto",
        "How the database is brought back after each test: auto (default) by copy on SQLite, and "
        "by undo on PostgreSQL, or by clone where the rights or the schema do not allow it; copy "
        "(SQLite) by restoring the file; undo (PostgreSQL) by taking back the rows that were "
        "changed; clone (PostgreSQL) by another database, made from the template.",
        "clone",
        ISOLATIONS,
        metavar="HOW",
    ),
    Option(
        "database",
        "auto",
        "What the test databases are: auto (default) whatever the app's engine asks for; sqlite; "
        "postgresql; own (a private PostgreSQL server, never a local service); or the URL of a "
        "server on which arena may create databases. A test that asks for a database before the "
        "app has made an engine needs another value than auto.",
        "postgresql://postgres@localhost:5432/postgres",
        metavar="WHAT",
    ),
    Option(
        "env",
        "DATABASE_URL",
        "Names of environment variables that hold the app's database URLs. Where one is set, it "
        "leads to the tests' database before any of your code is imported. One that is not set is "
        "set once the app's engine is known, for the processes that tests start: the first name "
        "to the app's first database, any other one to nowhere. Default: DATABASE_URL.",
        "SHOP_DATABASE_URL",
        form="list",
        metavar="NAMES",
    ),
    Option(
        "allow",
        "",
        "Databases of your own that tests may reach all the same; all others are refused. "
        "Patterns over a file path or over dialect://host:port/name.",
        "/srv/maps/*.sqlite",
        form="list",
        metavar="PATTERNS",
    ),
    Option(
        "roles",
        "",
        "Roles that a PostgreSQL schema grants something to, beside the users of the app's "
        "engines: made on a private server, to be there on any other. off: as arena's login.",
        "shop_readers",
        form="words",
        metavar="NAMES",
    ),
    Option(
        "drivers",
        "refuse",
        "Connections that no SQLAlchemy engine opens, by asyncpg, psycopg or psycopg2: refuse "
        "(default) those that lead outside the tests' databases; redirect them into the test's "
        "database; off lets them go anywhere.",
        "redirect",
        DRIVERS,
        metavar="WHAT",
    ),
    Option(
        "keep",
        "never",
        "Keep a copy of a test's database for a look, and print how to open it: never (default), "
        "failed for failed tests, always.",
        "failed",
        KEEPS,
        metavar="WHEN",
    ),
    Option(
        "mask",
        "",
        "Columns whose values no report shows, beside those that are named like a password, token, "
        "secret, key or hash. Patterns over table.column; a name without a dot is a column's in "
        "any table.",
        "patients.*",
        form="list",
        metavar="PATTERNS",
    ),
    Option(
        "specs",
        "",
        "The specifications whose Gherkin scenarios the tests prove: files, folders, or patterns "
        "like docs/**/*.md. *.feature is Gherkin, *.feature.md Gherkin in headings and lists, any "
        "other file Markdown with gherkin blocks. Not set: nothing is read, and "
        "@pytest.mark.scenario does nothing.",
        "docs/specs",
        form="list",
        metavar="PATHS",
    ),
    Option(
        "scenarios",
        "report",
        "What is made of the scenarios in arena_specs: report (default) says at the end of the run "
        "which are proven; strict also makes the run fail where one is not; off reads none.",
        "strict",
        ("off", "report", "strict"),
        metavar="HOW",
        short="--scenarios",
    ),
    Option(
        "scenario_evidence",
        "seeded, requested, asserted",
        "What the test of a proven scenario must have done, beside passing: seeded (rows were "
        "written before its first request; asked of scenarios that have a Given), requested (a "
        "request has reached the app), asserted (an assertion has passed after the last request).",
        "asserted",
        EVIDENCE,
        form="words",
        metavar="NAMES",
    ),
    Option(
        "scenario_lock",
        "scenarios.lock",
        "The file with the versions of the scenarios that somebody has accepted, which "
        "`arena scenarios accept` writes. A scenario with other steps is DRIFTED. Default: "
        "scenarios.lock, where there is one.",
        "specs/scenarios.lock",
        metavar="PATH",
    ),
    Option(
        "scenario_baseline",
        "",
        "The file with the gaps that are known already: a line 'STATUS  key' for each. They do not "
        "make a strict run fail, and what has been mended must be taken out.",
        "scenarios.baseline",
        metavar="PATH",
    ),
    Option(
        "scenario_waive",
        "",
        "Scenarios that need no test for now: a line for each, with a tag or a key, the day on "
        "which this ends, and the reason.",
        "@manual 2027-03-31 tried by hand before each release",
        form="lines",
        metavar="LINES",
    ),
)
FLAGS = (
    Flag(
        "scenario",
        "Run just the tests of this scenario: its key, its name or its @ID.",
        metavar="KEY",
    ),
    Flag(
        "scenarios_out",
        "Write what is known of the scenarios into files: json:PATH, html:PATH, md:PATH, "
        "messages:PATH, several with commas between them.",
        metavar="FORM:PATH",
    ),
    Flag(
        "scenarios_sabotage",
        "Run the tests of proven scenarios again with something broken: the seed removed, the "
        "app's commit taken back, PostgreSQL's policies off, the response emptied, or turned into "
        "a 500. A test that stays green is HOLLOW. Default: on where scenarios are strict and CI "
        "is set, else off.",
        has_no=True,
    ),
    # ARENA_<NAME> sets these too, unless its value is empty, 0, no, off or false.
    Flag(
        "rebuild",
        "Build the databases that tests are copied from (arena_schema and arena_seed) anew, "
        "once, even if nothing seems to have changed.",
        prefix="--arena-",
    ),
    Flag(
        "verify",
        "Read each database whole before and after each test, and fail a test after which it is "
        "not as it was. Costs two readings of all rows and definitions for each test and wider "
        "fixture.",
        prefix="--arena-",
    ),
)
