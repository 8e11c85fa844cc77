"""Statements that change a schema in each way that PostgreSQL has, and a schema for them."""

from __future__ import annotations

# Made by the role that owns the database.
SCHEMA = """
CREATE SCHEMA app;
CREATE TABLE app.notes (id serial PRIMARY KEY, text text NOT NULL, number int);
CREATE TABLE app.parts (a int) PARTITION BY LIST (a);
CREATE TABLE app.part PARTITION OF app.parts DEFAULT;
CREATE TABLE app.apart (a int);
CREATE TABLE app.parent (a int);
CREATE TABLE app.child (b int) INHERITS (app.parent);
CREATE TABLE app.loner (a int);
CREATE TABLE app.coll (t text);
CREATE TABLE app.linked (note int REFERENCES app.notes);
CREATE TABLE app.kept (a int);
ALTER TABLE app.kept ADD CHECK (a > 0) NOT VALID;
CREATE TABLE app.tenants (a int);
ALTER TABLE app.tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.tenants USING (true);
CREATE INDEX by_number ON app.notes (number);
CREATE STATISTICS app.numbers (dependencies) ON id, number FROM app.notes;
CREATE SEQUENCE app.held CACHE 5;
CREATE TYPE app.mood AS ENUM ('good');
CREATE TYPE app.pair AS (a int, b int);
CREATE TYPE app.span AS RANGE (subtype = int4);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE FUNCTION app.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION app.twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 2 * a';
CREATE FUNCTION app.same(a app.pair, b app.pair) RETURNS bool LANGUAGE sql AS 'SELECT a.a = b.a';
CREATE FUNCTION app.as_text(a app.pair) RETURNS text LANGUAGE sql AS 'SELECT ''pair''';
CREATE PROCEDURE app.nothing() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR app.=== (LEFTARG = app.pair, RIGHTARG = app.pair, FUNCTION = app.same);
CREATE TRIGGER nothing AFTER INSERT ON app.loner FOR EACH ROW EXECUTE FUNCTION app.noted();
CREATE RULE nothing AS ON DELETE TO app.loner DO INSTEAD NOTHING;
CREATE VIEW app.seen AS SELECT id, text FROM app.notes;
CREATE MATERIALIZED VIEW app.titles AS SELECT text FROM app.notes;
CREATE COLLATION app.plain FROM "C";
CREATE CONVERSION app.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = pg_catalog.simple);
CREATE TEXT SEARCH DICTIONARY app.dictionary (TEMPLATE = pg_catalog.simple);
CREATE PUBLICATION news;
COMMENT ON COLUMN app.notes.text IS 'a text';
INSERT INTO app.notes (text) VALUES ('one');
"""

# What a role may do that owns the database.
BY_ITS_OWNER = (
    # Tables.
    "CREATE TABLE app.more (a int)",
    "CREATE TABLE app.more AS SELECT 1 AS a",
    "CREATE TABLE app.more (LIKE app.notes INCLUDING ALL)",
    "DROP TABLE app.loner",
    "ALTER TABLE app.loner RENAME TO other",
    "ALTER TABLE app.loner RENAME a TO b",
    "ALTER TABLE app.loner SET SCHEMA public",
    "ALTER TABLE app.loner SET (fillfactor = 50)",
    "ALTER TABLE app.notes SET (toast.autovacuum_enabled = false)",
    "ALTER TABLE app.loner SET UNLOGGED",
    "ALTER TABLE app.loner OWNER TO {other}",
    "ALTER TABLE app.notes CLUSTER ON by_number",
    "CLUSTER app.notes USING by_number",
    "ALTER TABLE app.notes REPLICA IDENTITY FULL",
    "ALTER TABLE app.notes REPLICA IDENTITY USING INDEX notes_pkey",
    "ALTER TABLE app.child NO INHERIT app.parent",
    "ALTER TABLE app.apart INHERIT app.parent",
    "ALTER TABLE app.parts ATTACH PARTITION app.apart FOR VALUES IN (1)",
    "ALTER TABLE app.parts DETACH PARTITION app.part",
    "CREATE TABLE app.one PARTITION OF app.parts FOR VALUES IN (1)",
    "CREATE TYPE app.loners AS (a int); ALTER TABLE app.loner OF app.loners",
    "ALTER TABLE app.loner SET TABLESPACE pg_default; GRANT SELECT ON app.loner TO PUBLIC",
    # Columns.
    "ALTER TABLE app.notes ADD a int",
    "ALTER TABLE app.notes ADD a int DEFAULT 7",
    "ALTER TABLE app.notes DROP number",
    "ALTER TABLE app.notes ALTER text DROP NOT NULL",
    "ALTER TABLE app.loner ALTER a SET NOT NULL",
    "ALTER TABLE app.notes ALTER text SET DEFAULT 'a'",
    "ALTER TABLE app.notes ALTER number TYPE int8",
    "ALTER TABLE app.notes ALTER text SET STATISTICS 10",
    "ALTER TABLE app.notes ALTER text SET STORAGE EXTERNAL",
    "ALTER TABLE app.notes ALTER text SET COMPRESSION pglz",
    "ALTER TABLE app.notes ALTER number SET (n_distinct = 5)",
    "ALTER TABLE app.coll ALTER t SET DATA TYPE text COLLATE app.plain",
    "ALTER TABLE app.loner ADD b int GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE app.loner ADD b int GENERATED ALWAYS AS (a + 1) STORED",
    # Constraints and indexes.
    "ALTER TABLE app.notes ADD CHECK (id > 0)",
    "ALTER TABLE app.notes ADD CHECK (id > 0) NOT VALID",
    "ALTER TABLE app.kept VALIDATE CONSTRAINT kept_a_check",
    "ALTER TABLE app.kept DROP CONSTRAINT kept_a_check",
    "ALTER TABLE app.notes RENAME CONSTRAINT notes_pkey TO key",
    "ALTER TABLE app.linked ALTER CONSTRAINT linked_note_fkey DEFERRABLE INITIALLY DEFERRED",
    "ALTER TABLE app.loner ADD EXCLUDE (a WITH =)",
    "CREATE INDEX ON app.notes (text)",
    "CREATE UNIQUE INDEX ON app.notes (number) WHERE number > 0",
    "DROP INDEX app.by_number",
    "ALTER INDEX app.by_number RENAME TO by_it",
    "ALTER INDEX app.by_number SET (fillfactor = 50)",
    "CREATE INDEX i ON app.notes ((number + 1)); ALTER INDEX app.i ALTER 1 SET STATISTICS 9",
    # Triggers, rules, policies, row security.
    "CREATE TRIGGER t AFTER INSERT ON app.notes FOR EACH ROW EXECUTE FUNCTION app.noted()",
    "DROP TRIGGER nothing ON app.loner",
    "ALTER TRIGGER nothing ON app.loner RENAME TO other",
    "ALTER TABLE app.loner DISABLE TRIGGER nothing",
    "ALTER TABLE app.loner ENABLE ALWAYS TRIGGER nothing",
    "ALTER TABLE app.loner DISABLE TRIGGER USER",
    "CREATE RULE more AS ON DELETE TO app.notes DO INSTEAD NOTHING",
    "DROP RULE nothing ON app.loner",
    "ALTER RULE nothing ON app.loner RENAME TO other",
    "ALTER TABLE app.loner DISABLE RULE nothing",
    "ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE app.notes FORCE ROW LEVEL SECURITY",
    "ALTER TABLE app.tenants DISABLE ROW LEVEL SECURITY",
    "CREATE POLICY p ON app.notes USING (true)",
    "ALTER POLICY own ON app.tenants TO {other}",
    "ALTER POLICY own ON app.tenants RENAME TO others",
    "DROP POLICY own ON app.tenants",
    # Views.
    "CREATE VIEW app.v AS SELECT 1 AS a",
    "CREATE OR REPLACE VIEW app.seen AS SELECT id, text || '' AS text FROM app.notes",
    "ALTER VIEW app.seen SET (security_barrier = true)",
    "ALTER VIEW app.seen ALTER text SET DEFAULT 'x'",
    "ALTER VIEW app.seen RENAME text TO body",
    "DROP VIEW app.seen",
    "REFRESH MATERIALIZED VIEW app.titles",
    "REFRESH MATERIALIZED VIEW app.titles WITH NO DATA",
    "ALTER MATERIALIZED VIEW app.titles SET (fillfactor = 50)",
    # Sequences.
    "CREATE SEQUENCE app.more",
    "ALTER SEQUENCE app.held INCREMENT 3",
    "ALTER SEQUENCE app.held CACHE 7",
    "ALTER SEQUENCE app.held START 7",
    "ALTER SEQUENCE app.held OWNED BY app.notes.id",
    "ALTER SEQUENCE app.notes_id_seq OWNED BY NONE",
    "ALTER SEQUENCE app.held AS int",
    "DROP SEQUENCE app.held",
    # Functions, aggregates, operators, casts.
    "CREATE FUNCTION app.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION app.twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 3 * a'",
    "ALTER FUNCTION app.twice COST 7",
    "ALTER FUNCTION app.twice STRICT",
    "ALTER FUNCTION app.twice IMMUTABLE",
    "ALTER FUNCTION app.twice SECURITY DEFINER",
    "ALTER FUNCTION app.twice PARALLEL SAFE",
    "ALTER FUNCTION app.twice SET search_path = app",
    "ALTER FUNCTION app.twice RENAME TO thrice",
    "ALTER FUNCTION app.twice OWNER TO {other}",
    "ALTER FUNCTION app.twice DEPENDS ON EXTENSION plpgsql",
    "REVOKE EXECUTE ON FUNCTION app.twice FROM PUBLIC",
    "CREATE OR REPLACE PROCEDURE app.nothing() LANGUAGE sql AS 'SELECT 2'",
    "DROP FUNCTION app.twice",
    "CREATE AGGREGATE app.more(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE OR REPLACE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '1')",
    "ALTER AGGREGATE app.total(int) RENAME TO summed",
    "CREATE OPERATOR app.==== (LEFTARG = app.pair, RIGHTARG = app.pair, FUNCTION = app.same)",
    "ALTER OPERATOR app.=== (app.pair, app.pair) SET (RESTRICT = eqsel)",
    "CREATE CAST (app.pair AS text) WITH FUNCTION app.as_text(app.pair)",
    # Types.
    "CREATE TYPE app.more AS ENUM ('a')",
    "ALTER TYPE app.mood ADD VALUE 'bad'",
    "ALTER TYPE app.mood RENAME VALUE 'good' TO 'fine'",
    "ALTER TYPE app.mood RENAME TO moods",
    "ALTER TYPE app.mood OWNER TO {other}",
    "GRANT USAGE ON TYPE app.mood TO {other}",
    "ALTER TYPE app.pair ADD ATTRIBUTE c int",
    "ALTER TYPE app.pair RENAME ATTRIBUTE a TO c",
    "CREATE TYPE app.spans AS RANGE (subtype = int8)",
    "CREATE DOMAIN app.negative AS int CHECK (VALUE < 0)",
    "ALTER DOMAIN app.positive SET DEFAULT 7",
    "ALTER DOMAIN app.positive SET NOT NULL",
    "ALTER DOMAIN app.positive DROP CONSTRAINT positive_check",
    "DROP DOMAIN app.positive",
    # Collations, conversions, text search, statistics.
    'CREATE COLLATION app.c FROM "C"',
    "ALTER COLLATION app.plain RENAME TO other",
    "CREATE CONVERSION app.more FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "ALTER CONVERSION app.latin RENAME TO other",
    "CREATE TEXT SEARCH CONFIGURATION app.more (COPY = app.words)",
    "ALTER TEXT SEARCH CONFIGURATION app.words DROP MAPPING FOR email",
    "ALTER TEXT SEARCH CONFIGURATION app.words ALTER MAPPING FOR email WITH app.dictionary",
    "CREATE TEXT SEARCH DICTIONARY app.more (TEMPLATE = pg_catalog.simple)",
    "ALTER TEXT SEARCH DICTIONARY app.dictionary (accept = false)",
    "CREATE STATISTICS app.more ON id, number FROM app.notes",
    "ALTER STATISTICS app.numbers SET STATISTICS 7",
    "DROP STATISTICS app.numbers",
    # Comments.
    "COMMENT ON TABLE app.notes IS 'x'",
    "COMMENT ON COLUMN app.notes.text IS 'x'",
    "COMMENT ON COLUMN app.notes.text IS NULL",
    "COMMENT ON FUNCTION app.twice IS 'x'",
    "COMMENT ON SCHEMA app IS 'x'",
    # Rights.
    "GRANT SELECT ON app.notes TO PUBLIC",
    "GRANT SELECT (text) ON app.notes TO PUBLIC",
    "GRANT USAGE ON SEQUENCE app.held TO {other}",
    "GRANT USAGE ON SCHEMA app TO {other}",
    "GRANT CREATE ON SCHEMA public TO {other}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC",
    # Schemas, publications, extensions.
    "CREATE SCHEMA more",
    "ALTER SCHEMA app OWNER TO {other}",
    "ALTER SCHEMA app RENAME TO apps",
    "CREATE PUBLICATION other FOR TABLE app.notes",
    "ALTER PUBLICATION news ADD TABLE app.notes",
    "ALTER PUBLICATION news SET (publish = 'insert')",
    "ALTER PUBLICATION news RENAME TO other",
    "DROP PUBLICATION news",
    "CREATE EXTENSION citext",
    # Large objects and settings.
    "SELECT lo_create(4711)",
    "ALTER DATABASE {database} SET work_mem = '7MB'",
    "ALTER ROLE {role} IN DATABASE {database} SET work_mem = '7MB'",
    "ALTER DATABASE {database} RESET ALL; ALTER DATABASE {database} SET work_mem = '8MB'",
)
# What only a superuser may do.
BY_A_SUPERUSER = (
    "CREATE OPERATOR FAMILY app.family USING btree",
    "CREATE OPERATOR CLASS app.class FOR TYPE int4 USING btree AS OPERATOR 1 <",
    "ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 1 app.=== (app.pair, app.pair)",
    "CREATE ACCESS METHOD more TYPE INDEX HANDLER bthandler",
    "CREATE FOREIGN DATA WRAPPER more",
    "CREATE FOREIGN DATA WRAPPER more; CREATE SERVER far FOREIGN DATA WRAPPER more",
    (
        "CREATE TEXT SEARCH PARSER app.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, "
        "END = prsd_end, LEXTYPES = prsd_lextype)"
    ),
    "CREATE TEXT SEARCH TEMPLATE app.template (LEXIZE = dsimple_lexize)",
    "CREATE TYPE app.shell",
    (
        "CREATE TRANSFORM FOR app.pair LANGUAGE plpgsql "
        "(FROM SQL WITH FUNCTION prsd_lextype(internal))"
    ),
    "CREATE PUBLICATION everything FOR ALL TABLES",
    "CREATE PUBLICATION spaces FOR TABLES IN SCHEMA app",
    "ALTER LANGUAGE plpgsql OWNER TO {role}",
    "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
    "ALTER EXTENSION plpgsql ADD TABLE app.loner",
)
# What only a superuser may do to objects that PostgreSQL has by itself.
BY_A_SUPERUSER_TO_POSTGRESQL = (
    "COMMENT ON EXTENSION plpgsql IS 'x'",
    "ALTER FUNCTION pg_catalog.now() COST 7",
    "GRANT SELECT ON pg_catalog.pg_authid TO {role}",
)
