"""The wing of scenarios: what is specified, which test proves it, and what is told of that.

Imported only where a run has specifications: what it needs to read them costs nobody else.
"""
