"""What fixtures of the module before have written is gone."""

from carts_app import sync_cache


def test_no_key_of_a_wide_fixture_is_left():
    assert not sync_cache.exists("class", "module")
