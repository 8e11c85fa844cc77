"""PostgreSQL: its drivers, its servers, and how its databases are restored."""
