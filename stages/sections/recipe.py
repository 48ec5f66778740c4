"""The recipe of a language-model pipeline."""

from __future__ import annotations

from typing import cast

from pydantic import Field

from runner.recipe import schema
from stages.sections.cleanup import Cleanup
from stages.sections.cluster import Cluster
from stages.sections.dataset import Dataset
from stages.sections.deploy import Deploy
from stages.sections.evaluate import Evaluate
from stages.sections.infer import Infer
from stages.sections.model import Model
from stages.sections.query import Query
from stages.sections.serve import Serve
from stages.sections.train import Train


class Sections(schema.Identity):
    """The sections of the stages, and of what several of them use."""

    model: Model
    dataset: Dataset
    train: Train = Train()
    infer: Infer = Infer()
    evaluate: Evaluate = Evaluate()
    serve: Serve
    query: Query = Query()
    cleanup: Cleanup = Cleanup()
    deploy: Deploy = Deploy()


class Recipe(schema.Recipe, Sections):
    """A pipeline: data, model, training, inference, evaluation and serving, and what each stage may use."""

    pipeline: list[str] = Field(
        ["ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup"],
        description="Stages, in order.",
        min_length=1,
        max_length=schema.MOST_STAGES,
    )
    cluster: Cluster = Cluster()


def with_sections(recipe: schema.Recipe) -> Recipe:
    """The checked recipe, by its own class."""
    return cast(Recipe, recipe)
