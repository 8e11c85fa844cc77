"""The sections of docs/reference/options.md; ``python -m tests.options_page`` writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._options import DATABASES, FLAGS, OPTIONS

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
    """Return the section of an option: its names with its values, its help, an example."""
    value = "|".join(option.choices) or option.metavar
    names = [f"`--{option.ini.replace('_', '-')} {value}`", f"`{option.ini.upper()}`"]
    if option.short:
        names.append(f"`{option.short}`")
    default = ""
    if option.default and "default" not in option.help.lower():
        default = f" Default: `{option.default}`."
    example = f'["{option.example}"]' if option.many else f'"{option.example}"'
    return (
        f"\n## `{option.ini}`\n\n{', '.join(names)}\n\n{help_of(option)}{default}\n\n"
        f"```toml\n{option.ini} = {example}\n```\n"
    )


def help_of(option: Option) -> str:
    """Return the help, with the option's values and the names of other options as code."""
    text = re.sub(r"\b(arena_[a-z_]+)\b", r"`\1`", option.help)
    choices = DATABASES if option.name == "database" else option.choices
    for choice in choices:
        text = re.sub(rf"(?<=\. ){choice}(?= [a-z(])", f"`{choice}`", text)
    return text


def section_of_flag(flag: Flag) -> str:
    """Return the section of an option of one run."""
    value = f" {flag.metavar}" if flag.metavar else ""
    forms = [f"`{flag.flag}{value}`"]
    if flag.has_no:
        forms.append(f"`--no-{flag.name.replace('_', '-')}`")
    if flag.prefix != "--":
        forms.append(f"`ARENA_{flag.name.upper()}=1`")
    return f"\n## `{flag.flag}`\n\n{', '.join(forms)}\n\n{flag.help}\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
