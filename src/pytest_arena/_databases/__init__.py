"""The app's databases: which one a connection means, and how it is filled."""
