"""Writes of statements and sessions, and which are lost."""
