"""What is said to a database product in its own language, and what is known of its files."""
