-- The change journal of a database. pytest-arena executes this file once in a template, as a
-- superuser. Triggers write an image of each inserted (1) and deleted (-1) row into pg_arena.j. An
-- image is the text of the row. An entry with op 0 is a mark: a change that only a copy undoes. A
-- mark of a statement that changes the schema has the table pg_class. A level has the entries of
-- transactions (x), a request those of its time (t).
SET allow_system_table_mods = on;  -- reflection and pg_dump omit schemas whose names begin with pg_
CREATE SCHEMA pg_arena;
CREATE TABLE pg_arena.j (
    rel oid NOT NULL,
    op int NOT NULL,
    x xid8 NOT NULL DEFAULT pg_current_xact_id(),
    r text NOT NULL,
    t timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
CREATE INDEX j_x ON pg_arena.j (x);
-- The statements that delete and insert rows by their images.
CREATE TABLE pg_arena.t (rel oid PRIMARY KEY, take text NOT NULL, put text NOT NULL);
CREATE TABLE pg_arena.s (seq oid PRIMARY KEY);  -- the sequences
GRANT USAGE ON SCHEMA pg_arena TO PUBLIC;
GRANT INSERT ON pg_arena.j TO PUBLIC;

-- pytest-arena sets the settings of images for these two functions.
CREATE FUNCTION pg_arena.by_row() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$ BEGIN
    IF current_setting('arena.undo', true) = '1' THEN RETURN NULL; END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO pg_arena.j (rel, op, r) VALUES (TG_RELID, -1, (OLD.*)::text);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO pg_arena.j (rel, op, r) VALUES (TG_RELID, 1, (NEW.*)::text);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION pg_arena.by_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog SET row_security = off
AS $$ BEGIN
    IF current_setting('arena.undo', true) = '1' THEN RETURN NULL; END IF;
    EXECUTE format('INSERT INTO pg_arena.j (rel, op, r) SELECT %s, -1, (o.*)::text FROM ONLY %s o',
        TG_RELID, TG_RELID::regclass);
    -- TRUNCATE also removes rows that the snapshot of the transaction does not show.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        INSERT INTO pg_arena.j (rel, op, r)
        VALUES (TG_RELID, 0, 'TRUNCATE in a transaction that keeps its snapshot');
    END IF;
    RETURN NULL;
END $$;

-- Journal a new table, so that the changes of a test have its rows.
CREATE FUNCTION pg_arena.watch_new(c regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$ BEGIN
    INSERT INTO pg_arena.t VALUES (c, '', '');
    EXECUTE format('CREATE TRIGGER "!arena_row" AFTER INSERT OR UPDATE OR DELETE ON %1$s
        FOR EACH ROW EXECUTE FUNCTION pg_arena.by_row();
        CREATE TRIGGER "!arena_truncate" BEFORE TRUNCATE ON %1$s
        EXECUTE FUNCTION pg_arena.by_truncate()', c);
END $$;

-- Write the statements of a table, also after its columns were changed.
CREATE FUNCTION pg_arena.watch(c regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$ DECLARE key text; cols text; BEGIN
    SELECT k.parts INTO key FROM (
        SELECT i.indisprimary, i.indexrelid,
            string_agg(format('x.%1$I = u.%1$I', a.attname), ' AND ') AS parts
        FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY p(n, place)
        JOIN pg_attribute a ON a.attrelid = c AND a.attnum = p.n
        WHERE i.indrelid = c AND i.indisunique AND i.indisvalid
            AND i.indpred IS NULL AND i.indexprs IS NULL AND p.place <= i.indnkeyatts
        GROUP BY 1, 2 HAVING bool_and(a.attnotnull) ORDER BY 1 DESC, 2 LIMIT 1) k;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO cols FROM pg_attribute
        WHERE attrelid = c AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    IF NOT EXISTS (SELECT FROM pg_arena.t WHERE rel = c) THEN PERFORM pg_arena.watch_new(c); END IF;
    UPDATE pg_arena.t SET take = CASE
        WHEN key IS NULL THEN format('DELETE FROM ONLY %1$s d WHERE ctid = ANY (ARRAY(
            SELECT f.ctid FROM (
                SELECT x.ctid, w.k, row_number() OVER (PARTITION BY w.r) AS n FROM ONLY %1$s x
                JOIN (SELECT r, count(*) AS k FROM unnest($1) r GROUP BY r) w ON (x.*)::text = w.r
            ) f WHERE f.n <= f.k))', c)
        ELSE format('DELETE FROM ONLY %1$s x USING unnest($1::%1$s[]) u WHERE %2$s', c, key) END,
        put = format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE
            SELECT %2$s FROM unnest($1::%1$s[]) u', c, cols)
    WHERE rel = c;
    EXECUTE format('ALTER TABLE ONLY %1$s ENABLE ALWAYS TRIGGER "!arena_row";
        ALTER TABLE ONLY %1$s ENABLE ALWAYS TRIGGER "!arena_truncate"', c);
END $$;

-- Journal all tables, and note all sequences.
CREATE FUNCTION pg_arena.watch_all() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog
AS $$ BEGIN
    DELETE FROM pg_arena.t WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = rel);
    PERFORM pg_arena.watch(c.oid::regclass)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema';
    DELETE FROM pg_arena.s;
    INSERT INTO pg_arena.s SELECT oid FROM pg_class WHERE relkind = 'S' AND relpersistence <> 't';
END $$;

CREATE FUNCTION pg_arena.on_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog
AS $$ DECLARE d record; BEGIN
    -- A transaction without an id has written nothing: CREATE … IF NOT EXISTS.
    IF current_setting('arena.undo', true) = '1' OR pg_current_xact_id_if_assigned() IS NULL THEN
        RETURN;
    END IF;
    FOR d IN SELECT * FROM pg_event_trigger_ddl_commands()
        WHERE schema_name IS DISTINCT FROM 'pg_temp' AND command_tag <> 'REINDEX' LOOP
        INSERT INTO pg_arena.j (rel, op, r)
        VALUES ('pg_class'::regclass, 0, concat_ws(' ', d.command_tag, d.object_identity));
        IF d.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
            AND NOT EXISTS (SELECT FROM pg_arena.t WHERE rel = d.objid)
            AND (SELECT relkind FROM pg_class WHERE oid = d.objid) = 'r' THEN
            PERFORM set_config('arena.undo', '1', true);
            PERFORM pg_arena.watch_new(d.objid::regclass);
            PERFORM set_config('arena.undo', '', true);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION pg_arena.on_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog
AS $$ BEGIN
    IF current_setting('arena.undo', true) = '1' THEN RETURN; END IF;
    INSERT INTO pg_arena.j (rel, op, r)
    SELECT 'pg_class'::regclass, 0, concat_ws(' ', 'DROP', upper(object_type), object_identity)
    FROM pg_event_trigger_dropped_objects() WHERE original AND NOT is_temporary;
END $$;

-- The entries of transactions that a snapshot does not show.
CREATE FUNCTION pg_arena.since(start pg_snapshot) RETURNS SETOF pg_arena.j LANGUAGE sql STABLE AS $$
    SELECT j.* FROM pg_arena.j
    WHERE j.x >= pg_snapshot_xmin(start) AND NOT pg_visible_in_snapshot(j.x, start)
$$;

-- Return a fingerprint of the schema: for each catalog the number and the writers of its rows. A
-- table that was dropped and created again has another fingerprint. Takes 5 ms.
CREATE FUNCTION pg_arena.catalog() RETURNS text LANGUAGE plpgsql SET enable_seqscan = on
SET search_path = pg_catalog
AS $$ DECLARE query text; found text; BEGIN
    SELECT string_agg(format('SELECT %s AS c, count(*) AS n, sum(xmin::text::int8) AS x FROM %s',
        oid, oid::regclass), ' UNION ALL ') INTO query
    FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
        AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data');
    EXECUTE format('SELECT md5(string_agg(concat_ws('' '', c, n, x), '','' ORDER BY c)) FROM (%s) q',
        query) INTO found;
    RETURN found;
END $$;

-- Return why a copy is needed: the marks since a snapshot.
CREATE FUNCTION pg_arena.marks(start pg_snapshot) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(DISTINCT s.r, ', ') FROM pg_arena.since(start) s WHERE s.op = 0
$$;

-- Return the last number that was taken of each sequence, or NULL.
CREATE FUNCTION pg_arena.taken() RETURNS int8[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(pg_sequence_last_value(seq) ORDER BY seq), '{}') FROM pg_arena.s
$$;

-- Return the value of each sequence. Its first value has to be read from itself.
CREATE FUNCTION pg_arena.numbers() RETURNS int8[] LANGUAGE plpgsql
AS $$ DECLARE found int8[] := '{}'; d record; BEGIN
    FOR d IN SELECT seq, pg_sequence_last_value(seq) AS v FROM pg_arena.s ORDER BY seq LOOP
        IF d.v IS NULL THEN EXECUTE format('SELECT last_value FROM %s', d.seq::regclass) INTO d.v;
        END IF;
        found := found || d.v;
    END LOOP;
    RETURN found;
END $$;

-- Return the present snapshot, the values of sequences if they have moved since an earlier state,
-- and whether there are entries since then. If there are marks since then, return them, as the test
-- may have dropped a sequence.
CREATE FUNCTION pg_arena.enter(
    base pg_snapshot, base_taken int8[],
    OUT since text, OUT taken text, OUT numbers text, OUT marks text, OUT has_rows bool
) LANGUAGE plpgsql AS $$ DECLARE now int8[]; BEGIN
    SELECT pg_current_snapshot()::text, pg_arena.marks(base),
        EXISTS (SELECT FROM pg_arena.since(base)) INTO since, marks, has_rows;
    IF marks IS NULL THEN
        now := pg_arena.taken();
        IF now IS DISTINCT FROM base_taken THEN
            taken := now;
            numbers := pg_arena.numbers();
        END IF;
    END IF;
END $$;

-- Undo (1) or redo (-1) the net changes since a snapshot.
CREATE FUNCTION pg_arena.apply(start pg_snapshot, direction int) RETURNS void LANGUAGE plpgsql
AS $$ DECLARE d record; n int8; BEGIN
    FOR d IN SELECT q.rel, t.take, t.put, q.surplus, q.missing FROM (
            SELECT m.rel, array_agg(m.r) FILTER (WHERE m.c > 0) AS surplus,
                array_agg(m.r) FILTER (WHERE m.c < 0) AS missing
            FROM (SELECT s.rel, s.r, direction * sum(s.op) AS c FROM pg_arena.since(start) s
                WHERE s.op <> 0 GROUP BY s.rel, s.r HAVING sum(s.op) <> 0) m,
                generate_series(1, abs(m.c))
            GROUP BY m.rel) q LEFT JOIN pg_arena.t ON t.rel = q.rel LOOP
        IF d.surplus IS NOT NULL THEN
            EXECUTE d.take USING d.surplus;
            GET DIAGNOSTICS n = ROW_COUNT;
            IF n <> cardinality(d.surplus) THEN
                RAISE 'the journal contradicts the rows of %', d.rel::regclass;
            END IF;
        END IF;
        IF d.missing IS NOT NULL THEN
            EXECUTE d.put USING d.missing;
            GET DIAGNOSTICS n = ROW_COUNT;
            IF n <> cardinality(d.missing) THEN
                RAISE 'the journal contradicts the rows of %', d.rel::regclass;
            END IF;
        END IF;
    END LOOP;
END $$;

-- Restore the values of sequences. Return whether a sequence had another value.
CREATE FUNCTION pg_arena.rewind(before int8[], numbers int8[]) RETURNS bool LANGUAGE plpgsql
AS $$ DECLARE s record; now int8[] := pg_arena.taken(); BEGIN
    IF now IS NOT DISTINCT FROM before THEN RETURN false; END IF;
    FOR s IN SELECT q.seqrelid::regclass AS name, q.seqcache, b.number, b.was IS NOT NULL AS is_called
        FROM unnest(ARRAY(SELECT seq FROM pg_arena.s ORDER BY seq), now, before, numbers)
            b(seq, now, was, number) JOIN pg_sequence q ON q.seqrelid = b.seq
        WHERE b.now IS DISTINCT FROM b.was LOOP
        -- With this statement other sessions discard the values that they have cached.
        IF s.seqcache > 1 THEN EXECUTE format('ALTER SEQUENCE %s RESTART', s.name); END IF;
        PERFORM setval(s.name, s.number, s.is_called);
    END LOOP;
    RETURN true;
END $$;

-- Undo every change that was committed since a snapshot. Return about how many bytes of each table
-- the changes have written, or the marks if there are any.
CREATE FUNCTION pg_arena.leave(
    start pg_snapshot, before int8[], numbers int8[], catalog text,
    OUT was_changed bool, OUT marks text, OUT written json
) LANGUAGE plpgsql AS $$ BEGIN
    -- An open transaction that has written holds a lock on the journal.
    LOCK TABLE pg_arena.j IN EXCLUSIVE MODE NOWAIT;
    marks := pg_arena.marks(start);
    was_changed := true;
    -- The test has restored the schema, such as by create_all and drop_all.
    IF marks IS NOT NULL AND pg_arena.catalog() = catalog THEN
        DELETE FROM pg_arena.j WHERE rel = 'pg_class'::regclass
            OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = rel);
        DELETE FROM pg_arena.t WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = rel);
        marks := pg_arena.marks(start);
    END IF;
    IF marks IS NOT NULL THEN RETURN; END IF;
    PERFORM pg_arena.apply(start, 1);
    WITH undone AS (DELETE FROM pg_arena.j
        WHERE j.x >= pg_snapshot_xmin(start) AND NOT pg_visible_in_snapshot(j.x, start)
        RETURNING rel, 32 + length(r) AS size)
    SELECT json_object_agg(s.rel::regclass, s.size) INTO written
    FROM (SELECT rel, sum(size) AS size FROM undone GROUP BY rel) s;
    was_changed := pg_arena.rewind(before, numbers) OR written IS NOT NULL;
END $$;

-- In a copy of an earlier state: redo the changes that were committed before a snapshot.
CREATE FUNCTION pg_arena.redo(
    base pg_snapshot, start pg_snapshot, before int8[], numbers int8[]
) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM pg_arena.j WHERE NOT pg_visible_in_snapshot(j.x, start);
    PERFORM pg_arena.apply(base, -1);
    PERFORM pg_arena.rewind(before, numbers);
END $$;

-- Return what has changed since a snapshot, and the sessions inside a transaction that has written.
CREATE FUNCTION pg_arena.look(
    start pg_snapshot, before int8[], OUT is_changed bool, OUT writers int[]
) LANGUAGE plpgsql AS $$ DECLARE marks text := pg_arena.marks(start); BEGIN
    is_changed := marks IS NOT NULL OR EXISTS (SELECT FROM pg_arena.since(start));
    -- The transaction of a mark may have dropped a sequence.
    IF NOT is_changed THEN is_changed := pg_arena.taken() IS DISTINCT FROM before; END IF;
    writers := ARRAY(SELECT DISTINCT l.pid FROM pg_locks l
        -- A statement has this lock on its table before its trigger writes into the journal.
        WHERE l.relation >= 16384 AND l.mode = 'RowExclusiveLock' AND l.granted
        AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()));
END $$;

SET arena.undo = 1;
SELECT pg_arena.watch_all();
CREATE EVENT TRIGGER "!arena_ddl" ON ddl_command_end EXECUTE FUNCTION pg_arena.on_ddl();
CREATE EVENT TRIGGER "!arena_drop" ON sql_drop EXECUTE FUNCTION pg_arena.on_drop();
ALTER EVENT TRIGGER "!arena_ddl" ENABLE ALWAYS;
ALTER EVENT TRIGGER "!arena_drop" ENABLE ALWAYS;
