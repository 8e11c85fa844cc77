"""What the tests use."""

import asyncio
import contextlib
import datetime
import unittest
import warnings
from unittest import mock

import pytest
from app import HOOKS, Dancer, app, get_db, maker
from pytest_arena import inserted
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient, httpx

CALLS = []


def is_there(value):
    assert value is not None


def is_storm(value):
    assert value == "Storm"
