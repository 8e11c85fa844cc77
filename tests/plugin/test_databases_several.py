"""A thread of the app connects while another thread builds the template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example

if TYPE_CHECKING:
    from pathlib import Path


APP = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class ShopBase(DeclarativeBase):
    pass

class Order(ShopBase):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

shop = create_engine("sqlite:///shop.db")
"""

MEANWHILE = """
import threading
from sqlalchemy import select
from app import Order, ShopBase, shop

building, connecting = threading.Event(), threading.Event()

def make(connection):
    building.set()
    connecting.wait(20)
    ShopBase.metadata.create_all(connection)

def test_a_thread_of_the_apps_waits_for_the_template():
    def add():
        connecting.set()
        with shop.begin() as connection:
            connection.execute(Order.__table__.insert().values(id=1))
    def first():
        with shop.connect():
            pass
    threads = [threading.Thread(target=first), threading.Thread(target=add)]
    threads[0].start()
    building.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join()
    with shop.connect() as connection:
        assert connection.scalars(select(Order.id)).all() == [1]

def test_the_template_is_clean():
    with shop.connect() as connection:
        assert connection.scalars(select(Order.id)).all() == []
"""


def test_who_connects_while_a_template_is_built_waits_for_it(tmp_path: Path) -> None:
    """A thread that the app starts meanwhile is none of the builder's."""
    example = small_example(tmp_path, app=APP, test_meanwhile=MEANWHILE)
    ini = "[pytest]\narena_schema = test_meanwhile:make\npythonpath = .\n"
    example.with_paths({"pytest.ini": ini}).run("-p", "no:randomly").expect(passed=2)
