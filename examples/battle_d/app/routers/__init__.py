"""The addresses of the app, one file for each part of it."""

from app.routers import auth, battles, dancers, event, performers, tournaments

ROUTERS = (
    auth.router,
    tournaments.router,
    performers.router,
    dancers.router,
    event.router,
    battles.router,
)
