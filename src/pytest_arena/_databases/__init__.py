"""The databases of the app: which one a connection means, and how it gets its content."""
