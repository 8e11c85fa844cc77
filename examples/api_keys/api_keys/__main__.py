"""Serve the app on this machine: `python -m api_keys`."""

import uvicorn

uvicorn.run("api_keys.main:app", host="127.0.0.1", port=8000)
