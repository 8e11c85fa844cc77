"""What psql and pg_dump write into a script, and what arena runs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._server_registry import DatabaseTarget
from pytest_arena._product import ScriptError
from pytest_arena._values import Stage
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from tests.template.server_project import ServerProject


@pytest.mark.parametrize(
    "script,says,line",
    [
        ("select 1;\ndrop database if exists shop;", "DROP DATABASE reaches beyond", 0),
        ("alter system set x = 1;", "ALTER SYSTEM reaches beyond", 0),
        ("select 1;\n\\connect shop\nselect 2;", "syntax error", 2),
        ("copy a from stdin;\n1\n\\.\n", "does not run COPY", 1),
    ],
)
def test_a_script_that_reaches_beyond_the_database_is_refused(
    on_server: ServerProject, script: str, says: str, line: int
) -> None:
    """``pg_dump --create --clean`` would drop the developer's own database."""
    address = on_server.own.address_of()
    url = on_server.own.url_of(address, "postgresql", "asyncpg")
    with pytest.raises(ScriptError, match=says) as caught:
        DatabaseTarget(on_server.own, address, None, url).run_script(script)
    assert caught.value.line == line


DUMP = r"""
--
-- PostgreSQL database dump
--
\restrict aBc
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET default_table_access_method = heap;
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE TYPE public.mood AS ENUM ('calm', 'wild');
CREATE FUNCTION public.shout() RETURNS trigger LANGUAGE plpgsql AS $$
begin
    new.name := upper(new.name); return new;
end;
$$;
CREATE TABLE public.dancers (
    id integer NOT NULL,
    name text,
    mood public.mood,
    tags text[]
);
ALTER TABLE public.dancers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.dancers_id_seq START WITH 1 INCREMENT BY 1 NO MINVALUE NO MAXVALUE CACHE 1
);
INSERT INTO public.dancers OVERRIDING SYSTEM VALUE
    VALUES (1, 'Ana; B 100%', 'calm', '{a,"b c"}'), (2, NULL, 'wild', NULL);
SELECT pg_catalog.setval('public.dancers_id_seq', 2, true);
ALTER TABLE ONLY public.dancers ADD CONSTRAINT dancers_pkey PRIMARY KEY (id);
CREATE TRIGGER shout BEFORE INSERT ON public.dancers FOR EACH ROW EXECUTE FUNCTION public.shout();
\unrestrict aBc
"""


def test_a_dump_is_a_schema(on_server: ServerProject) -> None:
    """With its rows, also after a byte order mark. Its search path ends with its connection."""
    (on_server.root / "dump.sql").write_text(f"\ufeff{DUMP}", encoding="utf-8")
    on_server.schema, on_server.driver = "dump.sql", "asyncpg"
    assert on_server.rows("select id, name, mood::text, tags from dancers order by id") == [
        (1, "Ana; B 100%", "calm", ["a", "b c"]),
        (2, None, "wild", None),
        (3, "SAND", None, None),
    ]


@pytest.mark.parametrize(
    "script,says,line,fix",
    [
        (
            "select 1;\n\ncreate table a (\n  id int,\n  no_type\n);",
            "syntax error",
            6,
            "correct that",
        ),
        (
            "create table a (id int);\n-- owner\nalter table a owner to no_such_role;",
            'role "no_such_role" does not exist',
            0,
            "pg_dump --no-owner",
        ),
        (
            "create table a (name citext);",
            'type "citext" does not exist',
            1,
            "correct that",
        ),
        ("create table a (at no_such_type);", '"no_such_type" does not exist', 1, "correct that"),
    ],
)
def test_a_script_that_fails_names_the_line(
    on_server: ServerProject, script: str, says: str, line: int, fix: str
) -> None:
    (on_server.root / "bad.sql").write_text(script)
    on_server.schema = "bad.sql"
    with pytest.raises(TemplateError) as caught:
        on_server.ensure(stage=Stage.SCHEMA)
    assert says in caught.value.what
    assert f"bad.sql:{line}" in caught.value.cause or not line
    assert fix in caught.value.fix
    assert on_server.databases() == []
