"""How a database with schema and seed is built once, and found again."""
