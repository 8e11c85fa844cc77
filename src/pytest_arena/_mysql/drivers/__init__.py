"""Guards connections that no engine opens, and the statements of all connections."""
