"""Rules about every pipeline, whatever its stages are."""

from runner.pipeline.rules import environments, resources, stages

RULES = (*stages.RULES, *resources.RULES, *environments.RULES)
