"""Attacks at each moment of a run, each on a file of its own. The app swallows all errors."""

import atexit
import os
import sqlite3
import threading

import pytest
from moments import FILES, WAYS
from sqlalchemy import create_engine, text

TABLE = "CREATE TABLE IF NOT EXISTS attacks (a)"
session_over = threading.Event()


def by_engine(file):
    with ENGINES[file].begin() as connection:
        connection.execute(text(TABLE))


def by_driver(file):
    connection = sqlite3.connect(file)
    connection.execute(TABLE)
    connection.commit()
    connection.close()


def by_attach(file):
    connection = sqlite3.connect(":memory:")
    connection.execute("ATTACH ? AS x", (file,))
    connection.execute("CREATE TABLE x.attacks (a)")
    connection.commit()
    connection.close()


ENGINES = {file: create_engine(f"sqlite:///{file}") for file in FILES}


def attack(moment):
    for way in WAYS:
        outcome = "done"
        try:
            globals()[way](f"{moment}_{way}.db")
        except BaseException as error:
            outcome = type(error).__name__
        os.write(2, f"{moment} {way} {outcome}\n".encode())


def outlive():
    session_over.wait(30)
    attack("thread")


class Dying:
    def __del__(self):
        attack("del")


attack("conftest")
dying = Dying()
atexit.register(lambda: globals().pop("dying"))  # while there is an interpreter
atexit.register(attack, "exit")
thread = threading.Thread(target=outlive)


def pytest_configure():
    attack("configure")


def pytest_sessionstart():
    attack("sessionstart")
    thread.start()


def pytest_collection_modifyitems():
    attack("collection")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    attack("unconfigure")
    session_over.set()


@pytest.fixture(scope="session")
def wide():
    attack("fixture")
