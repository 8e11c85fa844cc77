"""All options: their names, values and help."""

from dataclasses import dataclass
from typing import Any

from pytest_arena._config._supported import NAMES, SUPPORTED


@dataclass(frozen=True, slots=True)
class Option:
    """One option of pytest's configuration, ``arena_<name>``."""

    name: str
    help: str
    default: str = ""
    choices: tuple[str, ...] = ()
    form: str = "text"
    """The name of the function that parses its text."""
    example: str = ""
    """A right value, for the message about a wrong one."""
    flag: str = ""
    """The name on the command line, "" for an option without it."""

    @property
    def ini(self) -> str:
        """The name in pytest's configuration."""
        return f"arena_{self.name}"

    @property
    def many(self) -> bool:
        """Whether pytest's configuration has a list for it."""
        return self.form in {"list", "variables"}


ISOLATIONS = ("auto", "copy", "undo", "clone", "rollback")
KEEPS = ("never", "failed", "always")
QUESTIONS = ("races", "interruptions", "logins")
ALL_QUESTIONS = ",".join(QUESTIONS)
NETWORK = ("report", "refuse", "any")

OPTIONS = (
    Option(
        "app",
        "The web app under test, or a function that returns it: package.module:attribute.",
    ),
    Option(
        "schema",
        "The source of the tables: package.module:Base, package.module:metadata, "
        "package.module:function, alembic.ini or a *.sql file. It is for each database. A line "
        "'name = value' is for one, and 'name = none' gives it no tables.",
        form="schemas",
        example="app.models:Base",
    ),
    Option(
        "seed",
        "A function that writes the rows for all tests: package.module:function. It gets a "
        "session. It is for the first database. A line 'name = value' is for another one.",
        form="seeds",
        example="tests.seed:seed",
    ),
    Option(
        "login",
        "A function that logs a client in: package.module:function. It gets the client and the "
        "role.",
    ),
    Option(
        "lifespan",
        "When the app's lifespan runs: for each test that uses a client, once for all tests, or "
        "never.",
        "on",
        ("on", "session", "off"),
    ),
    Option(
        "settle",
        "How many seconds a passed test waits at its end for work that its requests started.",
        "1",
        form="seconds",
    ),
    Option(
        "lock_timeout",
        "How many seconds a statement waits for a lock. With 0, the database's setting applies.",
        "5",
        form="seconds",
    ),
    Option(
        "isolation",
        "How the database is restored after each test.",
        "auto",
        ISOLATIONS,
        flag="--arena-isolation",
    ),
    Option(
        "database",
        "The kind of the test databases, or the URL of a server.",
        "auto",
        ("auto", *NAMES, "own"),
        form="server",
        example=SUPPORTED["postgresql"].example_url,
        flag="--arena-database",
    ),
    Option(
        "env",
        "The environment variables that hold the app's database URLs. They are replaced before "
        "any of your code is imported.",
        "DATABASE_URL",
        form="variables",
    ),
    Option(
        "allow",
        "Patterns of further databases that tests may reach: files, or dialect://host:port/name.",
        form="list",
    ),
    Option(
        "network",
        "What happens when a test reaches another machine, or a server that ran before the tests: "
        "report, refuse or any. Further words are hosts or patterns that tests may reach.",
        "report",
        form="network",
        example="refuse api.example.org 10.*",
    ),
    Option(
        "roles",
        "PostgreSQL roles that need rights in the schema, or off: the app then connects as "
        "pytest-arena's role.",
        form="list",
    ),
    Option(
        "drivers",
        "What happens to connections that your code opens by a driver, without SQLAlchemy.",
        "redirect",
        ("redirect", "refuse", "off"),
    ),
    Option(
        "keep",
        "When a copy of a test's database is kept.",
        "never",
        KEEPS,
        flag="--arena-keep",
    ),
    Option(
        "specs",
        "The specifications with Gherkin scenarios: files, folders or patterns.",
        form="list",
    ),
    Option(
        "scenarios",
        "How the scenarios of arena_specs are used: not at all, to list those without evidence, or "
        "to fail the run on each that is not proven, where tests run again with broken answers.",
        "report",
        ("off", "report", "strict"),
        flag="--scenarios",
    ),
)
# Options for one run, on the command line only, as argparse takes them.
FLAGS: dict[str, dict[str, Any]] = {
    "--arena-rebuild": {
        "action": "store_true",
        "help": "Build the tables again, even if arena_schema has not changed.",
    },
    "--arena-verify": {
        "action": "store_true",
        "help": "Compare each database before and after each test.",
    },
    "--arena-replay": {
        "nargs": "?",
        "const": ALL_QUESTIONS,
        "metavar": "QUESTIONS",
        "help": "After the tests, ask of each writing request that passed tests have sent whether "
        "it also holds twice at once, interrupted at each statement, and without its login. Only "
        f"some of these: --arena-replay={ALL_QUESTIONS}.",
    },
    "--scenarios-out": {
        "action": "append",
        "dest": "arena_scenarios_out",
        "metavar": "FORM:PATH",
        "help": "Write the results of the scenarios to files: json:PATH, html:PATH.",
    },
    "--scenarios-stubs": {
        "dest": "arena_scenarios_stubs",
        "metavar": "DIR",
        "help": "Write a failing test into this folder for each scenario that has none. No test is "
        "run.",
    },
    "--scenarios-accept": {
        "action": "store_true",
        "dest": "arena_scenarios_accept",
        "help": "Write the present steps of all scenarios to scenarios.lock. No test is run.",
    },
    "--scenarios-merge": {
        "nargs": "+",
        "dest": "arena_scenarios_merge",
        "metavar": "FILE",
        "help": "Judge several runs as one, by the files of --scenarios-out=json:FILE. No test is "
        "run.",
    },
}
MARKERS = (
    (
        "arena(isolation='copy', keep='failed', seed=False, schema=False): settings of this test's "
        "database. isolation is how pytest-arena restores it. keep is when to keep a copy (never, "
        "failed, always). seed=False leaves out the rows of arena_seed. schema=False gives an "
        "empty database, for tests of migrations."
    ),
    (
        "scenario('name'): the test proves this scenario of arena_specs. Also 'Feature :: name', "
        "or a tag, '@ID'. The test's parameters name the row of an outline. Without arena_specs "
        "the marker does nothing."
    ),
)
