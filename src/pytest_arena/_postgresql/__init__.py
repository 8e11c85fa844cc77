"""PostgreSQL: drivers, servers, isolation."""
