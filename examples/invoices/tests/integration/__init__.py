"""The app, its routes and its database together."""
