"""Do outputs go where they are asked to, and is a mistake told before it costs a run?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_arena.errors import ConfigError
from pytest_arena.scenarios import FORMS
from pytest_arena.scenarios.evidence._document import Document, Status
from pytest_arena.scenarios.outputs._targets import OutputTarget, targets, write
from tests.outputs.documents import every_status, judged

if TYPE_CHECKING:
    from pathlib import Path


def test_forms_and_paths_are_read() -> None:
    """Several have commas between them; a path may have a colon."""
    assert targets("") == ()
    assert targets("json:a.json, html:C:\\b.html,\nmd:c d.md,") == (
        OutputTarget("json", "a.json"),
        OutputTarget("html", "C:\\b.html"),
        OutputTarget("md", "c d.md"),
    )


@pytest.mark.parametrize(
    "text, what, fix",
    [
        ("htm:a.html", "'htm' is not an output format", "--scenarios-out=html:a.html"),
        ("report.json", "The formats are json, html, md, messages", ""),
        ("json", "the format json has no file", "--scenarios-out=json:scenarios.json"),
        ("json:a,md:a", "two outputs have the same file: a", ""),
    ],
)
def test_a_mistake_names_the_forms_and_what_to_write(text: str, what: str, fix: str) -> None:
    """Nothing of it is dropped silently."""
    with pytest.raises(ConfigError) as raised:
        targets(text)
    assert what in raised.value.what
    assert fix in raised.value.fix


def test_each_form_is_written_and_folders_are_made(tmp_path: Path) -> None:
    """Its line says where, as it was asked for."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "battles.md").write_text("# Battles of \u00e9\n", encoding="utf-8")
    wanted = targets(",".join(f"{form}:out/deep/{form}.x" for form in FORMS))
    told = write(wanted, every_status(), root=tmp_path)
    assert [line.rpartition(" ")[2] for line in told] == [f"out/deep/{form}.x" for form in FORMS]
    texts = {form: (tmp_path / "out" / "deep" / f"{form}.x").read_text("utf-8") for form in FORMS}
    assert json.loads(texts["json"])["schema"] == 1
    assert texts["html"].startswith("<!doctype html>")
    assert texts["md"].startswith("## Scenarios: ")
    assert (
        json.loads(texts["messages"].splitlines()[1])["source"]["data"] == "# Battles of \u00e9\n"
    )


def test_outputs_may_lie_elsewhere_than_the_specifications(tmp_path: Path) -> None:
    """Their paths begin in the folder of the call; an absolute one is taken as it is."""
    here, out = tmp_path / "here", tmp_path / "out.json"
    write(targets(f"json:{out},md:a.md"), every_status(), root=tmp_path / "p", folder=here)
    assert out.is_file()
    assert (here / "a.md").is_file()


def test_half_of_a_surrogate_pair_takes_no_file_away(tmp_path: Path) -> None:
    """The message of a failure may hold one."""
    one = judged(Status.FAILED, "not \ud83d")
    wanted = targets(",".join(f"{form}:{form}" for form in FORMS))
    write(wanted, Document(scenarios=(one,)), root=tmp_path)
    assert all((tmp_path / form).read_text("utf-8") for form in FORMS)


def test_what_cannot_be_written_is_an_error_and_the_others_are(tmp_path: Path) -> None:
    """It names the path and the system's reason."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"file/a.json cannot be written: ") as raised:
        write(targets("json:file/a.json,md:b.md"), every_status(), root=tmp_path)
    assert raised.value.cause == "--scenarios-out=json:file/a.json"
    assert (tmp_path / "b.md").is_file()


def test_the_same_document_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, and without a path of this machine."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for folder in ("a", "b"):
        wanted = targets(",".join(f"{form}:{form}" for form in FORMS))
        write(wanted, every_status(), root=tmp_path, folder=tmp_path / folder)
    for form in FORMS:
        text = (tmp_path / "a" / form).read_bytes()
        assert text == (tmp_path / "b" / form).read_bytes()
        assert str(tmp_path).encode() not in text
