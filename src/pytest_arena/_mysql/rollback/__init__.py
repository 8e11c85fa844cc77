"""The isolation ``rollback``: a proxy lets all connections of a test share one transaction."""
