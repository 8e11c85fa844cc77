"""Leads an unmodified app into the test's database, and blocks every other one."""
