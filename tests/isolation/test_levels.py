"""What each isolation must do, apart from random work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held
from tests.isolation.makers import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.isolation.makers import Makers
    from tests.isolation.world import Hand, World


@pytest.fixture(params=KINDS)
def world(makers: Makers, request: pytest.FixtureRequest) -> Iterator[World]:
    with makers.world(request.param) as world:
        yield world


def test_a_level_is_left_by_force(world: World) -> None:
    """The connection that held it cannot commit any more."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    before = world.content()
    generation = world.isolation.generation
    world.isolation.enter()
    holder = world.connect().raw
    world.execute(holder, "BEGIN")
    world.execute(holder, "DELETE FROM plain")
    assert not world.isolation.is_clean()
    with pytest.raises(Held):
        world.isolation.leave()
    world.isolation.leave_by_force()
    assert world.isolation.generation > generation
    with suppress(world.errors):
        world.execute(holder, "COMMIT")
    with suppress(world.errors):
        holder.close()
    assert world.content() == before
    world.isolation.leave()
    assert hand.rows("SELECT count(*) FROM plain") == [(3,)]


def test_the_next_level_finishes_an_interrupted_restore(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a time-out interrupts the restore, and then the restore by force."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = world.content()
    world.isolation.enter()
    world.connect().execute("DELETE FROM plain")
    with monkeypatch.context() as patch:
        patch.setattr(world.isolation, "_restore", interrupt)
        with pytest.raises(KeyboardInterrupt):
            world.isolation.leave()
        patch.setattr(world.isolation, "_open", interrupt)
        with pytest.raises(KeyboardInterrupt):
            world.isolation.leave_by_force()
    world.isolation.enter()
    assert world.content() == before
    world.isolation.leave()


def test_eight_connections_write_at_once(world: World) -> None:
    hands = [world.connect() for _ in range(8)]
    before = world.content()

    def work(hand: Hand, number: int) -> None:
        for turn in range(5):
            with suppress(world.errors):  # a lock or a deadlock
                hand.run(f"BEGIN; INSERT INTO plain VALUES ({number})")
                hand.run(f"UPDATE dancers SET style = '{turn}'; DELETE FROM plain WHERE a = {turn}")
                hand.execute("COMMIT")
            hand.rollback()

    for _ in range(2):
        world.isolation.enter()
        for hand in hands:
            hand.rows("SELECT 1")
        with ThreadPoolExecutor(8) as pool:
            assert [*pool.map(work, hands, range(8))] == [None] * 8
        assert world.isolation.leave()
        assert world.content() == before


def test_a_level_has_another_content(world: World) -> None:
    """The marker ``seed=False`` does it. Its content is no change."""
    hand = world.connect()
    before = world.content()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    wide = world.content()
    world.isolation.enter()
    world.isolation.replace(None)
    assert world.isolation.rows_changed() == []
    hand.execute("CREATE TABLE other (a INT)")
    inner = world.content()
    world.isolation.enter()
    hand.execute("INSERT INTO other VALUES (1)")
    assert [rows.table for rows in world.isolation.rows_changed()] == ["other"]
    world.isolation.leave()
    assert world.content() == inner
    world.isolation.replace(world.template())
    assert world.content() == before
    hand.run("BEGIN; INSERT INTO plain VALUES (8)")
    with pytest.raises(Held):
        world.isolation.leave()
    hand.rollback()
    world.isolation.leave()
    assert world.content() == wide
    world.isolation.leave()
    assert world.content() == before


def test_levels_that_nobody_used_are_clean(world: World) -> None:
    """There is no change either if a transaction was rolled back."""
    hand = world.connect()
    world.isolation.enter()
    world.isolation.enter()
    assert world.isolation.is_clean()
    assert not world.isolation.leave()
    hand.run("SELECT * FROM dancers; BEGIN; INSERT INTO plain VALUES (2); ROLLBACK")
    assert world.isolation.rows_changed() == []
    world.isolation.forget()


def test_changes_have_whole_rows(world: World) -> None:
    """An update is a removed and an added row. Without a key, equal rows are counted."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute("DELETE FROM plain WHERE a IS NULL")
    world.isolation.enter()
    hand.execute("UPDATE dancers SET style = 'new' WHERE id = 2")
    hand.execute("INSERT INTO dancers (name) VALUES ('Rock')")
    hand.execute("INSERT INTO plain VALUES (1)")
    found = {rows.table: rows for rows in world.isolation.rows_changed()}
    assert {*found} == {"dancers", "plain"}
    dancers = found["dancers"]
    assert dancers.columns == ("id", "name", "style")
    assert dancers.key == ("id",)
    assert dancers.removed == ((2, "Dune", "power"),)
    assert {row[:2] for row in dancers.added} >= {(2, "Dune")}
    assert (found["plain"].key, found["plain"].removed, found["plain"].added) == ((), (), ((1,),))
    [below] = world.isolation.rows_changed(depth=1)
    assert (below.table, below.removed, below.added) == ("plain", ((None,),), ())
    limited = world.isolation.rows_changed(limit=2)[0]
    assert len(limited.removed) + len(limited.added) + limited.more == 3
    assert not world.isolation.rows_changed(limit=3)[0].more
