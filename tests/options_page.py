"""The sections of docs/reference/options.md; ``python -m tests.options_page`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._options import FLAGS, OPTIONS

if TYPE_CHECKING:
    from pytest_arena._config._options import Flag, Option

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "options.md"
BEGIN = "<!-- the options: written by python -m tests.options_page -->\n"
END = "<!-- to here -->\n"


def written(text: str) -> str:
    """Return the page with the options of today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    sections = [*map(section_of_option, OPTIONS), *map(section_of_flag, FLAGS)]
    return before + BEGIN + "".join(sections) + "\n" + END + after


def section_of_option(option: Option) -> str:
    """Return the section of an option: its help, its values, its default, an example."""
    values = ", ".join(f"`{value}`" for value in option.choices) or f"`{option.metavar}`"
    default = f"`{option.default}`" if option.default else "not set"
    short = f" Also: `{option.short}`." if option.short else ""
    example = f'["{option.example}"]' if option.many else f'"{option.example}"'
    return (
        f"\n## `{option.ini}`\n\n{option.help}\n\n"
        f"Values: {values}. Default: {default}.{short}\n\n"
        f"```toml\n{option.ini} = {example}\n```\n"
    )


def section_of_flag(flag: Flag) -> str:
    """Return the section of an option of one run."""
    value = f" {flag.metavar}" if flag.metavar else ""
    forms = [f"`{flag.flag}{value}`"]
    if flag.has_no:
        forms.append(f"`--no-{flag.name.replace('_', '-')}`")
    if flag.prefix != "--":
        forms.append(f"`ARENA_{flag.name.upper()}=1`")
    return f"\n## `{flag.flag}`\n\n{flag.help}\n\nFor one run: {', '.join(forms)}.\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
