"""Writes the results to files and to the terminal, and writes stubs of missing tests."""
