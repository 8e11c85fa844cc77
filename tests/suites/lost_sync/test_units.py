"""A rollback at the end of each unit of work does not hide a commit that the app forgot."""

import pytest
import units

PATHS = [f"/{way}/{name}" for way in ("unit", "dependency") for name in ("flushed", "added")]


class TestFastAPI:
    @pytest.fixture
    def arena_app(self):
        return units.api

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.expect("LostWriteWarning", at="# lost")
    def test_a_forgotten_commit(self, test_client, path):
        assert test_client.post(f"{path}/201").status_code == 201

    @pytest.mark.parametrize("path", PATHS)
    def test_an_answer_that_refuses(self, test_client, path):
        assert test_client.post(f"{path}/422").status_code == 422

    @pytest.mark.parametrize("way", ["unit", "dependency"])
    @pytest.mark.parametrize("name", ["committed", "tried", "caught"])
    def test_what_is_not_lost(self, test_client, way, name):
        assert test_client.post(f"/{way}/{name}/200").status_code == 200

    @pytest.mark.parametrize("name", ["flushed", "added"])
    def test_a_unit_of_work_that_the_test_writes_in(self, name):
        with units.Unit() as unit:
            unit.session.add(units.Order(item="vase"))
            if name == "flushed":
                unit.session.flush()


class TestFlask:
    @pytest.fixture
    def arena_app(self):
        return units.flask

    @pytest.mark.parametrize("name", ["flushed", "added"])
    @pytest.mark.expect("LostWriteWarning", at="# lost")
    def test_a_forgotten_commit(self, test_client, name):
        assert test_client.post(f"/flask/{name}/201").status_code == 201

    @pytest.mark.parametrize("name", ["flushed", "added"])
    def test_an_answer_that_refuses(self, test_client, name):
        assert test_client.post(f"/flask/{name}/409").status_code == 409

    @pytest.mark.parametrize("name", ["committed", "tried", "caught"])
    def test_what_is_not_lost(self, test_client, name):
        assert test_client.post(f"/flask/{name}/200").status_code == 200
