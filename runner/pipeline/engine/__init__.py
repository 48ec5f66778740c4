"""The run itself: `run(recipe, options, command, observers)`."""

from runner.pipeline.engine.loop import run as run
