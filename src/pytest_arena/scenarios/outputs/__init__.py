"""Writes documents, pages, lines and missing tests."""
