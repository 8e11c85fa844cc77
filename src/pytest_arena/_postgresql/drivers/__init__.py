"""Refuses or redirects the app's PostgreSQL connections that no engine opens."""
