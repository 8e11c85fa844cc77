"""Run the app for a developer: `python -m app`. Login links appear in the log."""

import logging

import uvicorn


def main() -> None:
    """Serve on this machine alone, and log what the app says."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    uvicorn.run("app.main:app", host="127.0.0.1", port=8000)


if __name__ == "__main__":
    main()
