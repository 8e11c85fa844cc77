"""The database: one engine and one session maker for the whole process."""
