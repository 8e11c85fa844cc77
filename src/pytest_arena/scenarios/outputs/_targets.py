"""Which outputs are asked for, and where do they go?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_arena._config._load import nearest
from pytest_arena.errors import ConfigError
from pytest_arena.scenarios import FORMS
from pytest_arena.scenarios.evidence._document import Document, as_json
from pytest_arena.scenarios.outputs._ci import summary


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """One output: its form, and the file that it goes to."""

    form: str
    path: str


def targets(text: str) -> tuple[OutputTarget, ...]:
    """Read ``json:PATH,html:PATH,…``.

    Raises:
        ConfigError: an unknown form, no path, or one path twice.
    """
    wanted = tuple(
        _target(part) for part in text.replace("\n", ",").split(",") if part.strip()
    )
    paths = [target.path for target in wanted]
    for path in paths:
        if paths.count(path) > 1:
            raise _wrong(f"two outputs would go to {path}", "html:scenarios.html")
    return wanted


def _target(part: str) -> OutputTarget:
    form, _, path = (word.strip() for word in part.partition(":"))
    if form not in FORMS:
        fix = f"{nearest(form, FORMS)}:{path or 'PATH'}"
        raise _wrong(
            f"{form!r} is no form of output; there are {', '.join(FORMS)}", fix
        )
    if not path:
        raise _wrong(
            f"{form}: it is not said which file it goes to", f"{form}:{FORMS[form][0]}"
        )
    return OutputTarget(form, path)


def _wrong(what: str, fix: str) -> ConfigError:
    return ConfigError(
        f"--scenarios-out: {what}",
        why="the file would be missing where somebody waits for it",
        cause="--scenarios-out takes form:PATH, several with commas between them",
        fix=f"--scenarios-out={fix}",
    )


def write(
    targets: Sequence[OutputTarget],
    document: Document,
    *,
    root: Path,
    folder: Path | None = None,
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
    lines: list[str] = []
    errors: list[ConfigError] = []
    for target in targets:
        name, title = FORMS[target.form]
        text = _text(target.form, document, root)
        option = f"--scenarios-out={target.form}:"
        try:
            with writing(
                target.path,
                why="the scenarios were judged, and their document would be lost",
                cause=f"{option}{target.path}",
                fix=f"{option}{name}",
            ):
                write_text((folder or root) / target.path, text)
            lines.append(f"{title} written to {target.path}")
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return lines


def write_text(path: Path, text: str) -> None:
    """Write a file anew, and make the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half of a pair of surrogates, as JSON of others may hold one, is no reason to write nothing.
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def writing(path: object, *, why: str, cause: str, fix: str) -> Iterator[None]:
    """Around the writing of a file.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror or error}"
        raise ConfigError(what, why=why, cause=cause, fix=fix) from error


def _text(form: str, document: Document, root: Path) -> str:
    """Make one output. Each form loads what it needs, and reads the texts if it shows them."""
    if form == "json":
        return as_json(document)
    if form == "md":
        return summary(document)
    sources = {}
    for spec in document.specs:
        with suppress(OSError):  # what is not there any more is left out
            sources[spec] = (root / spec).read_text(
                encoding="utf-8-sig", errors="replace"
            )
    if form == "html":
        from pytest_arena.scenarios.outputs._page import page  # noqa: PLC0415 - Jinja takes a while

        return page(document, sources)
    from pytest_arena.scenarios.outputs._cucumber import messages  # noqa: PLC0415 - as above

    return messages(document, sources)
