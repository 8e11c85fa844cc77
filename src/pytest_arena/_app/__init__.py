"""Clients, the lifespan, logins and a live server."""
