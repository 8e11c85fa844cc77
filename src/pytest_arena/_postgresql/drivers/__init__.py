"""Connections to PostgreSQL that no engine opens."""
