"""Triggers, routines and views are copied. A copy undoes what they write."""

import pymysql
import pytest
from async_app import engine
from sqlalchemy import text

turns = pytest.mark.parametrize("turn", [1, 2])


async def ask(statement):
    async with engine.begin() as connection:
        return list((await connection.execute(text(statement))).scalars())


@turns
async def test_a_trigger_and_views(client, turn):
    assert await ask("SELECT words FROM log") == ["it's; ' fine"]
    await client.post("/orders/chair")
    assert await ask("SELECT words FROM log") == ["it's; ' fine", "chair", "twice"]
    assert await ask("SELECT item FROM a_names") == ["chair"]


@turns
async def test_a_function_that_writes(turn):
    assert await ask("SELECT writes()") == [1]
    assert len(await ask("SELECT words FROM log")) == 2


@turns
async def test_a_procedure(turn):
    assert await ask("SELECT SUM(amount) FROM stock") == [7]
    async with engine.begin() as connection:
        await connection.execute(text("CALL sells()"))
    assert await ask("SELECT SUM(amount) FROM stock") == [0]


async def test_a_redirected_connection(client):
    url = engine.url
    with pymysql.connect(host=url.host, user=url.username, database=url.database) as connection:
        connection.cursor().execute("INSERT INTO orders (item) VALUES ('vase')")
        connection.commit()
    assert (await client.get("/orders")).json() == ["vase"]
