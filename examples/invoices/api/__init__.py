"""The HTTP side: the app and its routes."""
