"""The text of a key: made here, shown once, and known by its hash afterwards."""

import hashlib
import secrets

PREFIX_LENGTH = len("ak_") + 8


def new_token() -> str:
    """Make the text of a key: `ak_`, 8 digits that name it, and 32 that nobody guesses."""
    return f"ak_{secrets.token_hex(4)}_{secrets.token_hex(16)}"


def prefix_of(token: str) -> str:
    """Give the part of a key that may be shown and looked up."""
    return token[:PREFIX_LENGTH]


def sha256_of(token: str) -> str:
    """Give the hash of a key, which is all that is stored of it."""
    return hashlib.sha256(token.encode()).hexdigest()
