"""What the tests use."""

import asyncio
import contextlib
import datetime
import functools
import json
import unittest
import warnings
from decimal import Decimal
from unittest import mock

import pytest
from app import HOOKS, Dancer, app, get_db, maker
from giving import give_error, give_status
from pytest_arena import inserted
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient, httpx

NAME = "Sand"
NAMES = ["Sand", "Storm"]
PATCHED = ""
CALLS = []


def is_there(value):
    assert value is not None


async def fetch(client):
    answer = await client.get("/dancers")
    return answer


async def fetch_if_good(client):
    answer = await client.get("/dancers")
    return answer if answer.is_success else None


def is_storm(value):
    assert value == "Storm"


def begin_with(names, letter="S"):
    for name in names:
        assert name.startswith(letter)


def begin_with_s(names):
    begin_with(names)


def the_names():
    return ["Sand", "Storm"]


def is_sand(value):
    assert value == "Sand"


def other_names():
    return ["Kite"]


def has_name(names, name):
    assert name in names


check = is_storm
check = is_sand
some_names = the_names
some_names = other_names
check_names = is_storm
check_names = has_name


def fill(into, values):
    into.extend(values)
