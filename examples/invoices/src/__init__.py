"""The packages that know nothing of HTTP."""
