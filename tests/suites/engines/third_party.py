"""A third-party dialect, as small as it can be. Its driver would reach a server."""

import sys
import types

from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect

reached = []
LOGIN = "me:s3" + "cret"  # no report may show it
driver = types.ModuleType("fakedriver")
driver.paramstyle, driver.Error = "qmark", Exception


class Connection:
    def rollback(self): ...

    close = commit = rollback


def connect(*args, **more):
    reached.append((args, more))
    return Connection()


driver.connect = connect


class Fake(DefaultDialect):
    name, driver, supports_statement_cache = "fake", "fakedriver", True

    @classmethod
    def import_dbapi(cls):
        return driver

    def initialize(self, connection): ...


class FakePostgreSQL(Fake):
    name = "postgresql"


sys.modules["fakedriver"] = driver
registry.register("fake", "third_party", "Fake")
registry.register("postgresql.fake", "third_party", "FakePostgreSQL")
