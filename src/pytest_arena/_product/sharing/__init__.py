"""The isolation ``rollback`` on a server: one real connection, which a proxy shares."""
