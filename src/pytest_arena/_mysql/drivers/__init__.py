"""Connections to MySQL and MariaDB that no engine opens, and the statements of all connections."""
