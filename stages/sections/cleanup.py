"""What is removed at the end."""

from __future__ import annotations

from pydantic import Field

from runner.recipe.schema import Section


class Cleanup(Section):
    """What to remove at the end, besides whatever the run started."""

    delete: list[str] = Field(
        default_factory=list, description="Artifacts of this run, by name, to delete.", examples=[["trained_weights"]]
    )
