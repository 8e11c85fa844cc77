"""All of PostgreSQL: its drivers, its servers, and how a database on one is brought back."""
