"""All SQL text of a database product, a module each."""
