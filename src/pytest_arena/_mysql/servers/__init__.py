"""Finds the MySQL or MariaDB server for the test databases, or starts one."""
