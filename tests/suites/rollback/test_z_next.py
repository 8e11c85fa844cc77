"""The tests after a module whose rows were lost."""


async def test_they_begin_as_always(client):
    assert (await client.get("/orders")).json() == []
    await client.post("/orders/chair")
