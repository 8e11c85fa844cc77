"""A sale with a row lock sells the last chair once, to the first buyer."""

import pytest
from conftest import TURNS, gather, to_server


@pytest.mark.parametrize("sold", [gather, to_server], indirect=True)
async def test_requests_at_once(sold):
    assert await sold("/locked") == [1] * TURNS


@pytest.mark.parametrize("sold", [gather], indirect=True)
async def test_requests_whose_pool_has_one_connection(sold):
    assert await sold("/locked", with_one_connection=True) == [1] * TURNS


def test_requests_in_threads(sold_in_threads):
    assert sold_in_threads("/locked") == [1] * TURNS
