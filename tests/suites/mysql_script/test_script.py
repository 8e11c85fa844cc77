"""A script creates tables and views, which are copied."""

import pymysql
from async_app import engine
from sqlalchemy import text


async def ask(statement):
    async with engine.begin() as connection:
        return list((await connection.execute(text(statement))).scalars())


async def test_a_view(client, turn):
    assert await ask("SELECT words FROM log") == ["it's; ' fine"]
    await client.post("/orders/chair")
    assert await ask("SELECT item FROM all_names") == ["chair"]


async def test_a_redirected_connection(client):
    url = engine.url
    with pymysql.connect(host=url.host, user=url.username, database=url.database) as connection:
        connection.cursor().execute("INSERT INTO orders (item) VALUES ('vase')")
        connection.commit()
    assert (await client.get("/orders")).json() == ["vase"]
