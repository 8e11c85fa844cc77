"""The words of statements on MySQL and MariaDB."""

import re

from pytest_arena._product._statements import Words

WORDS = Words(
    altering=re.compile(
        r"(?ix) (?:\A|;)\s* (?: SET \b (?!\s+(?:TRANSACTION)\b) | PREPARE\b | USE\b "
        r"| LOCK\s+TABLES?\b | CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b | EXECUTE\s+IMMEDIATE\b )"
        r"| := | \bGET_LOCK\s*\( | \bINTO\s+@"
    ),
    beyond=re.compile(
        r"(?i)(?:\A|;)\s*(?P<verb>(?:CREATE|DROP)\s+(?:DATABASE|SCHEMA))\b"
    ),
    # A comment with `!` has statements that the server executes. The search is fast because each
    # alternative begins with a fixed character.
    parts=re.compile(
        r"""(?sx) (?P<text> '[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'
            | "[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+" )
        | (?P<name> `[^`]*+(?:``[^`]*+)*+` )
        | --(?=\s|\Z)[^\n]* | \#[^\n]* | /\*M?!\d* | /\*.*?\*/ | \*/
        | (?P<number> (?<![\w$])\d++(?:\.\d++)?+(?![\w$]) )"""
    ),
)
