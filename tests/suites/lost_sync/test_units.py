"""A rollback at the end of each unit of work does not hide a commit that the app forgot."""

import pytest
import units
from sqlalchemy.orm import Session
from sync_app import engine

WAYS = ["unit", "dependency", "next", "one_session"]
PATHS = [f"/{way}/{name}" for way in WAYS for name in ("flushed", "returned", "added")]
PATHS = ["/dropped/flushed", "/dropped/returned", *PATHS]


@pytest.fixture(scope="module")
def of_module():
    return units.maker()


class TestFastAPI:
    @pytest.fixture
    def arena_app(self):
        return units.api

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.expect("LostWriteWarning", at="# lost")
    def test_a_forgotten_commit(self, test_client, path):
        assert test_client.post(f"{path}/201").status_code == 201

    @pytest.mark.parametrize("path", PATHS[:-1])  # the next commit would write the last one
    def test_an_answer_that_refuses(self, test_client, path):
        assert test_client.post(f"{path}/422").status_code == 422

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("name", ["committed", "missed", "tried", "caught"])
    def test_what_is_not_lost(self, test_client, way, name):
        assert test_client.post(f"/{way}/{name}/200").status_code == 200

    @pytest.mark.parametrize("work", [units.flushed, units.added])
    def test_a_unit_of_work_that_the_test_opens(self, work):
        with units.Unit() as unit:
            work(unit.session)

    @pytest.fixture
    def rolled_back(self):
        with units.maker() as session:
            yield session
            session.rollback()

    @pytest.fixture
    def in_a_savepoint(self):
        with engine.connect() as connection:
            transaction = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                yield session
            transaction.rollback()

    @pytest.mark.parametrize("fixture", ["rolled_back", "in_a_savepoint", "of_module"])
    def test_a_session_that_the_suite_isolates(self, request, test_client, fixture):
        """It is no clean-up of the app. Another line of the summary names the shared session."""
        session = request.getfixturevalue(fixture)
        units.api.dependency_overrides[units.get_db] = lambda: session
        assert test_client.post("/dependency/flushed/201").status_code == 201


class TestFlask:
    @pytest.fixture
    def arena_app(self):
        return units.flask

    @pytest.mark.parametrize("name", ["flushed", "added"])
    @pytest.mark.expect("LostWriteWarning", at="# lost")
    def test_a_forgotten_commit(self, test_client, name):
        assert test_client.post(f"/flask/{name}/201").status_code == 201

    @pytest.mark.parametrize("name", ["flushed", "added", "committed", "missed", "tried", "caught"])
    def test_what_is_not_lost(self, test_client, name):
        status = 409 if name in {"flushed", "added"} else 200
        assert test_client.post(f"/flask/{name}/{status}").status_code == status
