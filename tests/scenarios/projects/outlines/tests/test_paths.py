"""Each parameter set proves the row with its values."""

import pytest


@pytest.mark.scenario("A path is answered")
@pytest.mark.parametrize("path, status", [("/battles", 200), ("/nothing", 404)])
async def test_paths(client, scenario, path, status):
    with scenario.when("I GET <path>"):
        response = await client.get(path)
    with scenario.then(f"the answer is {status}"):
        assert response.status_code == status


@pytest.mark.scenario("<Path name> is open")
@pytest.mark.parametrize("path_name", ["/battles", "/judges"])
async def test_open(client, path_name):
    assert (await client.get(path_name)).status_code == 200


@pytest.mark.scenario("A path is answered [path=/others, status=404]")
async def test_others(client):
    assert (await client.get("/others")).status_code == 404
