"""Requests at once interleave: a sale without a lock sells the last chair more than once."""

import pytest
from conftest import BUYERS, TURNS, gather, to_server
from race_app import STEPS


@pytest.mark.parametrize("path", ["/unlocked", "/unlocked?reads=2"])
@pytest.mark.parametrize("sold", [gather], indirect=True)
async def test_each_request_of_one_loop_has_read_before_one_writes(sold, path):
    await sold(path)
    # A loaded machine delays some turns beyond the patience. Without the wait no turn is in step.
    assert sum("UPDATE" not in turn[: 2 * BUYERS] for turn in STEPS[-TURNS:]) >= TURNS / 2


@pytest.mark.parametrize("sold", [gather], indirect=True)
async def test_the_first_request_waits_until_the_others_have_a_connection(sold):
    counts = await sold("/unlocked", with_one_connection=True)
    assert sum(count > 1 for count in counts) > TURNS / 2


@pytest.mark.parametrize("sold", [to_server], indirect=True)
async def test_requests_to_a_server(sold):
    assert max(await sold("/unlocked")) > 1


def test_requests_in_threads(sold_in_threads):
    assert max(sold_in_threads("/unlocked")) > 1
