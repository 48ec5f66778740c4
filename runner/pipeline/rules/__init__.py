"""Rules about every pipeline, whatever its stages are."""

from runner.pipeline.rules import resources, stages

RULES = (*stages.RULES, *resources.RULES)
