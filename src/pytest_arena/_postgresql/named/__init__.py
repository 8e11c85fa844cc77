"""The isolation ``rollback`` in a database that ``arena_database`` names."""
