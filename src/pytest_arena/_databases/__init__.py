"""The app's databases, and the templates with which they are filled."""
