"""Connects the app's engines to the test's database, and blocks other databases."""
