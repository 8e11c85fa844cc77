"""The app: its routes, its refusals, and its life from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from api.routes import hitl, invoices
from src.models.database import (
    DuplicateInvoiceError,
    StaleVersionError,
    UnknownInvoiceError,
    engine,
    init_db,
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Make the tables that are missing; close the connections at the end."""
    await init_db()
    yield
    await engine.dispose()


app = FastAPI(title="Invoices", lifespan=lifespan)
app.include_router(invoices.router)
app.include_router(hitl.router)


@app.get("/health")
async def tell_health() -> dict[str, str]:
    """Say that the app is up."""
    return {"status": "ok"}


@app.exception_handler(UnknownInvoiceError)
async def refuse_unknown(_request: Request, error: UnknownInvoiceError) -> JSONResponse:
    """Answer 404 for what is not there."""
    return JSONResponse({"detail": str(error)}, status_code=404)


@app.exception_handler(DuplicateInvoiceError)
async def refuse_duplicate(_request: Request, error: DuplicateInvoiceError) -> JSONResponse:
    """Answer 409 for an id that is taken."""
    return JSONResponse({"detail": str(error)}, status_code=409)


@app.exception_handler(StaleVersionError)
async def refuse_stale(_request: Request, error: StaleVersionError) -> JSONResponse:
    """Answer 409, with the version to read, to whoever worked on an old one."""
    body = {"detail": str(error), "current_version": error.current}
    return JSONResponse(body, status_code=409)
