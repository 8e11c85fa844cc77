"""Clients, the lifespan, logins and a live server: how a test uses the app."""
