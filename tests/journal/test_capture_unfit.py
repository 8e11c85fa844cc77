"""What a journal cannot see or bring back is said when it is installed; some of it stops that."""

from __future__ import annotations

import pytest

from pytest_arena._postgresql.journal._capture import install
from tests.journal.world import World, database, knows_xml, schema_of_journal
from tests.servers.postgresql import address, rows, run

TRIGGER = (
    "CREATE TABLE {table} (a int); CREATE TRIGGER t BEFORE UPDATE ON {table} FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger(); ALTER TABLE {table} {how} TRIGGER t"
)
RULE = "CREATE TABLE {table} (a int); CREATE RULE r AS ON DELETE TO {table} DO INSTEAD NOTHING"
FATAL = {
    TRIGGER.format(table="a", how="ENABLE ALWAYS"): (
        "public.a has the trigger t, which is ENABLE ALWAYS"
    ),
    TRIGGER.format(table="b", how="ENABLE REPLICA"): (
        "public.b has the trigger t, which is ENABLE REPLICA"
    ),
    RULE.format(table="c") + "; ALTER TABLE c ENABLE ALWAYS RULE r": (
        "public.c has the rule r, which is ENABLE ALWAYS"
    ),
}
XML = {
    "CREATE TABLE d (a xml[])": "public.d.a has xml inside",
    "CREATE TYPE one AS (x xml); CREATE DOMAIN two AS one; CREATE TABLE e (a int, b two[])": (
        "public.e.b has xml inside"
    ),
}
NOT_FATAL = {
    "CREATE TABLE f (a int); INSERT INTO f VALUES (-1); "
    "ALTER TABLE f ADD CONSTRAINT positive CHECK (a > 0) NOT VALID": (
        "rows of public.f break its constraint positive"
    ),
    "CREATE TABLE g (a text); "
    "INSERT INTO g SELECT repeat('x', 1900) FROM generate_series(1, 10000)": (
        "public.g has neither a key nor a column"
    ),
    "DO $$ BEGIN FOR n IN 1..101 LOOP EXECUTE 'CREATE SEQUENCE s' || n; END LOOP; END $$": (
        "101 sequences are too many"
    ),
}
FIT = (
    TRIGGER.format(table="h", how="DISABLE"),
    RULE.format(table="i") + "; CREATE VIEW v AS SELECT * FROM i",
    "CREATE TABLE j (a int); ALTER TABLE j ADD CONSTRAINT positive CHECK (a > 0) NOT VALID",
    "CREATE TABLE k (a int); ALTER TABLE k ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE DOMAIN page AS xml; CREATE TABLE l (a xml, b page)",
)


def test_what_would_be_wrong_in_silence_is_fatal_pitfall_036_047_048() -> None:
    """Nothing is installed then. Common schemas, and what is noticed later, stop nothing."""
    reasons = FATAL | (XML if knows_xml() else {})
    with database(*reasons, *FIT, *NOT_FATAL) as name:
        found = install(address(name))
        fatal = [unfit.reason for unfit in found if unfit.is_fatal]
        assert len(fatal) == len(reasons)
        for reason in reasons.values():
            assert any(line.startswith(reason) for line in fatal), reason
        assert schema_of_journal(name) == ""


@pytest.mark.slow
def test_what_is_noticed_later_is_said_pitfall_039_057_058() -> None:
    """And it is installed all the same; common schemas get no line."""
    with database(*NOT_FATAL, *FIT) as name:
        found = install(address(name))
        assert not any(unfit.is_fatal for unfit in found)
        assert len(found) == len(NOT_FATAL)
        for reason in NOT_FATAL.values():
            assert any(unfit.reason.startswith(reason) for unfit in found), reason
        assert schema_of_journal(name) == "pg_arena"
    with database(*FIT) as name:
        assert install(address(name)) == []


def test_foreign_tables_and_partitions_pitfall_054() -> None:
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
        with database(here) as mine:
            (found,) = install(address(mine))
            assert found.reason.startswith("public.far is a foreign table")
            assert not found.is_fatal
            world = World(mine)
            world.run("INSERT INTO parts VALUES (1), (2), (9)", "UPDATE parts SET a = 2")
            assert world.written() == {('"public"."parts"', "(2)"): 2}
            world.run("TRUNCATE near")
            assert world.written() == {}
            world.close()


def test_a_table_that_takes_no_triggers_stops_it() -> None:
    """As some extensions have them; here a foreign one is taken for a table of ours."""
    with database("CREATE TABLE notes (a int)") as name:
        run(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE feature_not_supported USING MESSAGE = 'hypertables take no such trigger'; "
            "END $$; CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN "
            "('CREATE TRIGGER') EXECUTE FUNCTION refuse(); "
            "ALTER EVENT TRIGGER refuse ENABLE ALWAYS",
            database=name,
        )
        (found,) = install(address(name))
        assert found.is_fatal
        assert "hypertables take no such trigger" in found.reason
        assert schema_of_journal(name) == ""
