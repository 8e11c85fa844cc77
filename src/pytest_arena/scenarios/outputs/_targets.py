"""Reads the options for outputs, and writes the outputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_arena._config._load import nearest
from pytest_arena.errors import ConfigError
from pytest_arena.scenarios import FORMS
from pytest_arena.scenarios.evidence._document import Document, as_json
from pytest_arena.scenarios.outputs._ci import summary

_OF_PYTEST = "--scenarios-out="


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """The format and the file of one output."""

    form: str
    path: str
    option: str = _OF_PYTEST
    """The option that names the output, as messages write it."""


def targets(
    text: str,
    option: str = _OF_PYTEST,
) -> tuple[OutputTarget, ...]:
    """Read ``json:PATH,html:PATH,…``, the value of an option.

    Raises:
        ConfigError: a format is unknown, a path is missing, or a path occurs twice.
    """
    parts = text.replace("\n", ",").split(",")
    wanted = [_target(part, option) for part in parts if part.strip()]
    paths = set()
    for target in wanted:
        if target.path in paths:
            what = f"two outputs have the same file: {target.path}"
            raise _wrong(what, "html:scenarios.html", option)
        paths.add(target.path)
    return tuple(wanted)


def _target(part: str, option: str) -> OutputTarget:
    form, _, path = (word.strip() for word in part.partition(":"))
    if form not in FORMS:
        what = f"{form!r} is not an output format. The formats are {', '.join(FORMS)}"
        raise _wrong(what, f"{nearest(form, FORMS)}:{path or 'PATH'}", option)
    if not path:
        what = f"the format {form} has no file"
        raise _wrong(what, f"{form}:{FORMS[form][0]}", option)
    return OutputTarget(form, path, option)


def _wrong(what: str, fix: str, option: str) -> ConfigError:
    name = option.rstrip("= ")
    return ConfigError(
        f"{name}: {what}",
        why="the output would not be written",
        cause=f"{name} needs FORMAT:PATH. Commas separate several outputs",
        fix=f"{option}{fix}",
    )


def write(
    targets: Sequence[OutputTarget],
    document: Document,
    *,
    root: Path,
    folder: Path | None = None,
) -> list[str]:
    """Write each output, and create its folders.

    Args:
        targets: the outputs.
        document: the content of the outputs.
        root: the folder that paths of specifications are relative to.
        folder: the folder that paths of outputs are relative to. ``root`` by default.

    Returns:
        A line for each output, with its file.

    Raises:
        ConfigError: a file cannot be written. The other files are written.
    """
    lines = []
    errors = []
    for target in targets:
        name, title = FORMS[target.form]
        text = _text(target.form, document, root)
        option = f"{target.option}{target.form}:"
        try:
            with writing(
                target.path,
                why="the results of the scenarios would be lost",
                cause=f"{option}{target.path}",
                fix=f"{option}{name}",
            ):
                write_text((folder or root) / target.path, text)
        except ConfigError as error:
            errors.append(error)
        else:
            lines.append(f"{title} written to {target.path}")
    if errors:
        raise errors[0]
    return lines


def write_text(path: Path, text: str) -> None:
    """Write a file, and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The JSON of another program may have half of a surrogate pair, which UTF-8 cannot encode.
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def writing(
    path: object,
    *,
    why: str,
    cause: str,
    fix: str,
) -> Iterator[None]:
    """Turn an OSError of the block into an error with the path and the advice.

    Raises:
        ConfigError: the block could not write the file.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}",
            why=why,
            cause=cause,
            fix=fix,
        ) from error


def _text(
    form: str,
    document: Document,
    root: Path,
) -> str:
    """Return one output. Import the slow modules only if its format needs them."""
    if form == "json":
        return as_json(document)
    if form == "md":
        return summary(document)
    sources = {}
    for spec in document.specs:
        with suppress(OSError):  # the file was removed
            sources[spec] = (root / spec).read_text(
                encoding="utf-8-sig", errors="replace"
            )
    if form == "html":
        from pytest_arena.scenarios.outputs._page import page  # noqa: PLC0415 - Jinja takes a while

        return page(document, sources)
    from pytest_arena.scenarios.outputs._cucumber import messages  # noqa: PLC0415 - as above

    return messages(document, sources)
