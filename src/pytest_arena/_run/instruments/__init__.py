"""What did a test do: seed, request, assert? Facts for whoever judges, and its step blocks."""

from __future__ import annotations

from pytest_arena._run.instruments._blocks import NotWritten, Scenario
from pytest_arena._run.instruments._instruments import Instruments

__all__ = ["Instruments", "NotWritten", "Scenario"]
