"""Requests to the endpoint."""

from __future__ import annotations

from pydantic import Field

from runner.recipe.schema import PositiveInt, Seconds, Section


class Query(Section):
    """Requests that the openai client streams from base and adapter."""

    num_rows: PositiveInt = Field(1, description="Test rows to ask about, from the start of the test set.")
    timeout_s: Seconds = Field(120.0, description="Seconds a request may take.")
