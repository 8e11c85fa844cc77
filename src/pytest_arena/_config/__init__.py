"""The user's options, which pytest-arena reads once."""
