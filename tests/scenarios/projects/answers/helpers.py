"""What the tests use."""

import asyncio
import contextlib
import datetime
import unittest
from unittest import mock

import pytest
from app import HOOKS, Dancer, app, get_db, maker
from pytest_arena import inserted
from starlette.testclient import TestClient

CALLS = []


def is_storm(value):
    assert value == "Storm"
