"""Which outputs are asked for, and where do they go?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._config._load import nearest
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_arena.scenarios.evidence import Document

__all__ = ["FORMS", "Target", "targets", "write"]


@dataclass(frozen=True, slots=True)
class Target:
    """One output: its form, and the file that it goes to."""

    form: str
    path: str


def targets(text: str) -> tuple[Target, ...]:
    """Read ``json:PATH,html:PATH,…``.

    Raises:
        ConfigError: an unknown form, no path, or one path twice.
    """
    found = tuple(_target(part) for part in text.replace("\n", ",").split(",") if part.strip())
    paths = [target.path for target in found]
    for path in paths:
        if paths.count(path) > 1:
            raise _wrong(f"two outputs would go to {path}", "html:scenarios.html")
    return found


def _target(part: str) -> Target:
    form, _, path = (word.strip() for word in part.partition(":"))
    if form not in FORMS:
        fix = f"{nearest(form, FORMS)}:{path or 'PATH'}"
        raise _wrong(f"{form!r} is no form of output; there are {', '.join(FORMS)}", fix)
    if not path:
        raise _wrong(f"{form}: it is not said which file it goes to", f"{form}:{_NAMES[form]}")
    return Target(form, path)


def _wrong(what: str, fix: str) -> ConfigError:
    return ConfigError(
        f"--scenarios-out: {what}",
        why="the file would be missing where somebody waits for it",
        cause="--scenarios-out takes form:PATH, several with commas between them",
        fix=f"--scenarios-out={fix}",
    )


def write(
    targets: Sequence[Target], document: Document, *, root: Path, folder: Path | None = None
) -> list[str]:
    """Write each output, and make the folders that it needs.

    Args:
        targets: what goes where.
        document: what is written.
        root: where the paths of the specifications begin, whose texts some forms show.
        folder: where the paths of the outputs begin; not given: ``root``.

    Returns:
        A line for each: what was written, and where.

    Raises:
        ConfigError: a file cannot be written; the others are.
    """
    told: list[str] = []
    failed: list[ConfigError] = []
    sources = _Sources(document, root)
    for target in targets:
        text = FORMS[target.form](document, sources)
        try:
            _put((folder or root) / target.path, text)
        except OSError as error:
            failed.append(_unwritable(target, error))
        else:
            told.append(f"{_TITLES[target.form]} written to {target.path}")
    if failed:
        raise failed[0]
    return told


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half of a pair of surrogates, as JSON of others may hold one, is no reason to write nothing.
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def _unwritable(target: Target, error: OSError) -> ConfigError:
    return ConfigError(
        f"{target.path} cannot be written: {error.strerror or error}",
        why="the scenarios were judged, and their document would be lost",
        cause=f"--scenarios-out={target.form}:{target.path}",
        fix=f"--scenarios-out={target.form}:{_NAMES[target.form]}",
    )


class _Sources:
    """The specifications' own texts, read when an output needs them."""

    def __init__(self, document: Document, root: Path) -> None:
        self._document, self._root = document, root

    def texts(self) -> Mapping[str, str]:
        """By path, in the document's order; what is not there any more is left out."""
        texts = {spec: _text(self._root / spec) for spec in self._document.specs}
        return {spec: text for spec, text in texts.items() if text is not None}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return None


def _json(document: Document, sources: _Sources) -> str:
    from pytest_arena.scenarios.evidence import as_json  # noqa: PLC0415 - each form loads what it needs

    del sources
    return as_json(document)


def _html(document: Document, sources: _Sources) -> str:
    from pytest_arena.scenarios.outputs._page import page  # noqa: PLC0415 - as above

    return page(document, sources.texts())


def _markdown(document: Document, sources: _Sources) -> str:
    from pytest_arena.scenarios.outputs._ci import summary  # noqa: PLC0415 - as above

    del sources
    return summary(document)


def _messages(document: Document, sources: _Sources) -> str:
    from pytest_arena.scenarios.outputs._cucumber import messages  # noqa: PLC0415 - as above

    return messages(document, sources.texts())


FORMS: Mapping[str, Callable[[Document, _Sources], str]] = {
    "json": _json,
    "html": _html,
    "md": _markdown,
    "messages": _messages,
}
_NAMES = {
    "json": "scenarios.json",
    "html": "scenarios.html",
    "md": "scenarios.md",
    "messages": "scenarios.ndjson",
}
_TITLES = {
    "json": "scenarios as JSON",
    "html": "scenarios as a page",
    "md": "scenarios as Markdown",
    "messages": "scenarios as Cucumber messages",
}
