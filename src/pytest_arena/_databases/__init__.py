"""The app's databases, and how they are filled."""
