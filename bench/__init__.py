"""The bench: whole suites of tests, isolated in several ways, side by side."""
