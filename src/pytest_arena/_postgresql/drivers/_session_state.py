"""The statements that change a session beyond their transaction."""

import re

# Settings, roles, listeners, locks, prepared statements. pytest-arena sends DISCARD SEQUENCES.
# `set_config(…, true)` ends with the transaction. Apps with row security call it in each one.
ALTERING = re.compile(
    r"""(?isx) (?:\A|;) \s* (?: SET (?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b) | RESET
        | DISCARD (?!\s+SEQ) | LISTEN | UNLISTEN | PREPARE | LOAD | DO
        | DECLARE \b (?=[^;]*\bHOLD)
        | CREATE \s+ (?:OR\s+REPLACE\s+)? (?:LOCAL\s+|GLOBAL\s+)? TEMP(?:ORARY)? ) \b
    | \b set_config (?!"?\s*\([^()]*,\s*true\s*\)) | \b pg_(?:try_)?advisory_lock
    | \b pg_temp \b | \b setseed \b | \b INTO \s+ TEMP"""
)
