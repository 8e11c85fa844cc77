"""Runs each test, from its level to its report."""
