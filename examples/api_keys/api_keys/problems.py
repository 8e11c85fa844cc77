"""Refusals as `application/problem+json` (RFC 9457), whoever refuses."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api_keys.query_language import TOO_DEEP


class Problem(Exception):
    """A request that is refused."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def install(app: FastAPI) -> None:
    """Let the app answer with problems."""
    app.add_exception_handler(Problem, _refuse)
    app.add_exception_handler(HTTPException, _refuse_address)
    app.add_exception_handler(RequestValidationError, _refuse_content)
    app.add_exception_handler(Exception, _apologize)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return _answer(error.status, error.detail, error.headers)


async def _refuse_address(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, error.detail)


async def _refuse_content(_request: Request, error: Exception) -> JSONResponse:
    """Answer 400 to a query that is too deep; what else is wrong is 422, as FastAPI has it."""
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()
    status = 400 if any(each["type"] == TOO_DEEP for each in wrong) else 422
    places = (".".join(str(step) for step in each["loc"][1:]) for each in wrong)
    texts = (each["msg"] for each in wrong)
    return _answer(status, "; ".join(map(": ".join, zip(places, texts, strict=True))))


async def _apologize(_request: Request, _error: Exception) -> JSONResponse:
    return _answer(500, "The error was written to the log.")


def _answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    content = {
        "type": f"https://httpstatuses.com/{status}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(content, status, headers, media_type="application/problem+json")
