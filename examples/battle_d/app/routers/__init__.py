"""The addresses of the app, one file for each part of it."""

from app.routers import auth, battles, dancers, event, tournaments

ROUTERS = (auth.router, tournaments.router, dancers.router, event.router, battles.router)
