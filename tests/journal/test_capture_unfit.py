"""What a journal cannot see or bring back is said when it is installed; some of it stops that."""

from __future__ import annotations

from contextlib import closing

import pytest

from pytest_arena._dialects._postgresql._control import open_control
from pytest_arena._dialects._postgresql_journal._capture import install
from pytest_arena._dialects._postgresql_journal._tables import find_schema
from tests.journal.capture_world import Journaled, database, knows_xml
from tests.servers.postgresql import address, rows

TRIGGER = (
    "CREATE TABLE notes (a int); CREATE TRIGGER t BEFORE UPDATE ON notes FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger(); "
    "ALTER TABLE notes ENABLE {how} TRIGGER t"
)
FATAL = {
    "u47_always": (
        TRIGGER.format(how="ALWAYS"),
        "public.notes has the trigger t, which is ENABLE ALWAYS",
    ),
    "u47_replica": (TRIGGER.format(how="REPLICA"), "t, which is ENABLE REPLICA"),
    "u48_rule": (
        (
            "CREATE TABLE notes (a int); CREATE RULE r AS ON DELETE TO notes DO INSTEAD NOTHING; "
            "ALTER TABLE notes ENABLE ALWAYS RULE r"
        ),
        "public.notes has the rule r, which is ENABLE ALWAYS",
    ),
    "u36_xml_in_an_array": ("CREATE TABLE notes (a xml[])", "public.notes.a holds xml inside"),
    "u36_xml_in_a_composite": (
        "CREATE TYPE one AS (x xml); CREATE DOMAIN two AS one; CREATE TABLE notes (a int, b two[])",
        "public.notes.b holds xml inside",
    ),
}
NOT_FATAL = {
    "u39_not_valid": (
        (
            "CREATE TABLE notes (a int); INSERT INTO notes VALUES (-1); "
            "ALTER TABLE notes ADD CONSTRAINT positive CHECK (a > 0) NOT VALID"
        ),
        "rows of public.notes break its constraint positive",
    ),
    "no_key": (
        (
            "CREATE TABLE notes (a text); "
            "INSERT INTO notes SELECT repeat('x', 1900) FROM generate_series(1, 10000)"
        ),
        "public.notes has neither a key nor a column",
    ),
    "u57_sequences": (
        "DO $$ BEGIN FOR n IN 1..101 LOOP EXECUTE 'CREATE SEQUENCE s' || n; END LOOP; END $$",
        "101 sequences, more than",
    ),
    "u58_large_objects": ("SELECT lo_create(0)", "there are large objects"),
}
FIT = {
    "rules_and_triggers": "CREATE TABLE notes (a int); CREATE RULE r AS ON INSERT TO notes "
    "DO NOTHING; CREATE TRIGGER t BEFORE UPDATE ON notes FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger(); "
    "ALTER TABLE notes DISABLE TRIGGER t; CREATE VIEW v AS SELECT * FROM notes",
    "not_valid_but_kept": "CREATE TABLE notes (a int); "
    "ALTER TABLE notes ADD CONSTRAINT positive CHECK (a > 0) NOT VALID",
    "row_level_security": "CREATE TABLE notes (a int); ALTER TABLE notes "
    "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "xml": "CREATE DOMAIN page AS xml; CREATE TABLE notes (a xml, b page)",
}


@pytest.mark.parametrize("schema, reason", FATAL.values(), ids=FATAL.keys())
def test_what_would_be_wrong_in_silence_is_fatal(schema: str, reason: str) -> None:
    """Nothing is installed then."""
    if "xml" in schema and not knows_xml():
        pytest.skip("this server was built without libxml")
    with database(schema) as name, closing(open_control(address(name))) as control:
        (found,) = install(control, "pg_arena")
        assert reason in found.reason
        assert found.is_fatal
        assert find_schema(control) == ""


@pytest.mark.parametrize("schema, reason", NOT_FATAL.values(), ids=NOT_FATAL.keys())
def test_what_is_noticed_later_is_said(schema: str, reason: str) -> None:
    """And it is installed all the same."""
    with database(schema) as name, closing(open_control(address(name))) as control:
        (found,) = install(control, "pg_arena")
        assert reason in found.reason
        assert not found.is_fatal
        assert find_schema(control) == "pg_arena"


@pytest.mark.parametrize("schema", FIT.values(), ids=FIT.keys())
def test_the_rest_is_nothing_to_talk_about(schema: str) -> None:
    """Common schemas get no line."""
    with database(schema) as name, closing(open_control(address(name))) as control:
        assert install(control, "pg_arena") == []


def test_pitfall_054_foreign_tables_and_partitions() -> None:
    """The partitions that are not foreign are journaled, by row."""
    if not rows("SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("postgres_fdw is not installed")
    at = address()
    with database("CREATE TABLE far (a int)") as name:
        here = (
            "CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw "
            f"OPTIONS (host '{at.host}', port '{at.port}', dbname '{name}'); "
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user '{at.user}'); "
            "CREATE TABLE parts (a int) PARTITION BY LIST (a); "
            "CREATE TABLE near PARTITION OF parts FOR VALUES IN (1, 2); "
            "CREATE FOREIGN TABLE far PARTITION OF parts DEFAULT SERVER s"
        )
        with database(here) as mine, closing(open_control(address(mine))) as control:
            (found,) = install(control, "pg_arena")
            assert found.reason.startswith("public.far is a foreign table")
            assert not found.is_fatal
            world = Journaled(mine, control)
            with world.app(
                "INSERT INTO parts VALUES (1), (2), (9)", "UPDATE parts SET a = 2"
            ) as app:
                assert world.written() == {('"public"."parts"', "(2)"): 2}
                app.execute("TRUNCATE near")
                assert world.written() == {}


def test_a_table_that_takes_no_triggers_stops_it() -> None:
    """As some extensions have them; here a foreign one is taken for a table of ours."""
    with (
        database("CREATE TABLE notes (a int)") as name,
        closing(open_control(address(name))) as control,
    ):
        control.run(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE feature_not_supported USING MESSAGE = 'hypertables take no such trigger'; "
            "END $$; CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN "
            "('CREATE TRIGGER') EXECUTE FUNCTION refuse(); "
            "ALTER EVENT TRIGGER refuse ENABLE ALWAYS"
        )
        (found,) = install(control, "pg_arena")
        assert found.is_fatal
        assert "hypertables take no such trigger" in found.reason
        assert find_schema(control) == ""
