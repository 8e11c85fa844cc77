"""Another product is refused, and so is what needs an option that is not set."""

import pytest
import third_party
from sqlalchemy import create_engine


@pytest.mark.expect("A202", at="fake://")
def test_another_product():
    create_engine(f"fake://{third_party.LOGIN}@db.example.com:1234/shop").connect()


def test_another_driver(arena):
    engine = create_engine("postgresql+fake://me@db.example.com/shop")
    with arena.expect_refusal() as refused:
        engine.connect()
    assert "fakedriver" in refused.error.what
    assert "asyncpg" in refused.error.fix


def test_a_pattern_that_does_not_match(arena):
    with arena.expect_refusal() as refused:
        create_engine("fake://me@not-ok.example.com:1234/shop").connect()
    assert "it is not in arena_allow = allowed.sqlite, fake://ok" in refused.error.fix


def test_a_driver_of_a_creator_has_a_line_that_allows_it(arena):
    engine = create_engine("sqlite://", creator=third_party.connect)
    with arena.expect_refusal() as refused:
        engine.connect()
    assert "arena_allow = third_party://(unknown)" in refused.error.fix


def test_an_allowed_one():
    with create_engine("fake://me@ok.example.com:1234/shop").connect():
        assert third_party.reached[-1][1]


@pytest.mark.expect("A101")
def test_a_client_without_an_app(client): ...


@pytest.mark.expect("A101")
def test_a_client_of_arena_without_an_app(arena):
    arena.client()
