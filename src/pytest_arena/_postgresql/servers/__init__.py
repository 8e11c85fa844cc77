"""Finds the PostgreSQL server for the test databases, or starts one."""
