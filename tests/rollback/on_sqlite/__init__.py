"""``rollback``: all connections of a test share one real connection, which never commits."""
