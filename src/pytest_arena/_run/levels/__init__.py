"""Levels: the state at the start of a test or a fixture, and how it is restored."""
