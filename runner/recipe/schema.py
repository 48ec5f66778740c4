"""The recipe keys of every pipeline: type, range, unit, default and meaning.

A recipe is checked before anything heavy is imported. Unknown keys are refused everywhere except in pass-through
mappings, whose keys are a library's own. The sections of the stages come from the package that
`runner.recipe.extension` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

PositiveInt = Annotated[int, Field(gt=0)]
NumWorkers = Annotated[int, Field(gt=0, le=10_000)]
Fraction = Annotated[float, Field(gt=0, le=1)]
PassThrough = dict[str, Any]
# What the timers of the system, of Ray and of HAProxy can count in milliseconds: 24 days.
Seconds = Annotated[float, Field(gt=0, le=2_000_000)]
# Of custom resources, by their names; Ray counts no more.
Amounts = dict[str, Annotated[float, Field(ge=0, le=100e12)]]
# The start of an id may be all digits, which a command line takes for a number.
RunName = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
# Names that a recipe lists; a text has commas between them, which is also how they are kept.
Names = Annotated[
    str,
    BeforeValidator(lambda value: ",".join(value) if isinstance(value, list) and all_texts(value) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


def all_texts(values: list[Any]) -> bool:
    """Whether there are values, and each is a text."""
    return bool(values) and all(isinstance(value, str) for value in values)


class Section(BaseModel):
    """A part of the recipe: immutable, strictly typed, no unknown keys.

    other_names: what people call a key that is not one -> the key, below the section. It is hinted at, not accepted.
    other_values: key -> what people write for a value that it does not take -> what to do instead.
    """

    other_names: ClassVar[Mapping[str, str]] = {}
    other_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False)

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The section's raw values with those that they imply."""
        return values


MOST_STAGES = 100


class Storage(Section):
    """Where runs and artifacts are kept."""

    root: str = Field("runs", description="Folder of the run folders; all nodes of the cluster must see it.")
    artifacts: str = Field("runs/artifacts", description="Artifact store: a local folder or s3://bucket/prefix.")
    cache: str = Field("~/.cache/recipe-runner", description="Folder for models, shared by all runs.")
    endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/@]+/?[^\s@]*$",
        json_schema_extra={"patternErrorMessage": "an address without user and password: http://HOST:PORT"},
        description="S3 endpoint of the store; null follows boto3's own chain.",
        examples=["http://127.0.0.1:9000"],
    )
    share_cache: bool | None = Field(
        None,
        description="Keep finished stages' results in the store for other machines: all that they wrote below root, "
        "and never the base model. null: when the store is not below root.",
        examples=[True],
    )

    @property
    def runs(self) -> Path:
        """`root` as an absolute folder without symbolic links."""
        return Path(self.root).expanduser().resolve()


class Cluster(Section):
    """The Ray cluster to run on."""

    address: str | None = Field(
        None,
        min_length=1,
        description="Address of a running cluster (host:port, or auto); null starts one here for the run. For submit, "
        "deploy and what goes with them: of its dashboard.",
        examples=["10.0.0.1:6379", "auto", "http://10.0.0.1:8265"],
    )
    num_cpus: Annotated[int, Field(gt=0, le=100_000)] | None = Field(
        None, description="CPUs of the cluster started here; null: all.", examples=[8]
    )
    num_gpus: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        None, description="GPUs of the cluster started here; null: all.", examples=[1]
    )
    resources: Amounts = Field(
        default_factory=dict, description="Custom resources of the cluster started here.", examples=[{"fast_disk": 1}]
    )
    dashboard: bool = Field(False, description="Start Ray's dashboard (on loopback).")
    accelerator: Literal["cpu", "gpu"] = Field("gpu", description="What the stages compute on.")
    price_per_hour: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="What an hour of the cluster costs, in any currency; `plan` says what the run would.",
        examples=[5.67],
    )


class Submit(Section):
    """How `submit` sends the recipe to a cluster, as a Ray Job. `cluster.address` is its dashboard's."""

    code: Literal["ship", "installed"] = Field(
        "ship",
        description="ship: send this package (runner, stages, recipes) with the job; installed: the cluster's nodes "
        "have it. The user's --config-dir is always sent.",
    )
    env: list[str] = Field(
        default_factory=list,
        description="Names of environment variables to pass on to the job, such as credentials. Their values are in "
        "its runtime environment, which whoever may use the cluster's API can read, and nowhere else.",
        examples=[["HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
    )
    python: str = Field("python", description="The interpreter on the cluster.", examples=["/opt/venv/bin/python"])
    num_cpus: Annotated[float, Field(ge=0)] = Field(
        0.0, description="CPUs to reserve for the job's driver, apart from what its stages ask for."
    )
    resources: Amounts = Field(
        default_factory=dict,
        description="Custom resources to reserve for the driver, for instance to place it.",
        examples=[{"head_node": 0.1}],
    )


class WorkerRange(Section):
    """How many workers a stage may have, which changes with the cluster's nodes while it runs."""

    min: NumWorkers = Field(description="With fewer it waits.", examples=[1])
    max: NumWorkers = Field(
        description="What a step of the work is made for: with fewer workers each does more of it.", examples=[4]
    )
    check_every_s: Seconds = Field(
        60.0,
        description="How often it looks whether the cluster has capacity for more workers, in seconds. Growing is a "
        "restart.",
    )


class StageResources(Section):
    """What one stage asks of Ray."""

    num_workers: Annotated[
        Annotated[NumWorkers, Tag("number")] | Annotated[WorkerRange, Tag("range")],
        Discriminator(lambda given: "range" if isinstance(given, Mapping | WorkerRange) else "number"),
    ] = Field(
        1,
        description="Workers of a stage that has several, else tasks. A range {min, max} is for a stage that continues "
        "with the workers that are left, on a cluster whose nodes come and leave, and grows again.",
        examples=[4, {"min": 1, "max": 4}],
    )
    cpus_per_worker: Annotated[float, Field(ge=0)] = Field(1.0, description="CPUs of each worker.")
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(0.0, description="GPUs of each worker.")
    accelerator_type: str | None = Field(
        None, min_length=1, description="Ray's name of the GPU type.", examples=["A10G", "H100"]
    )
    custom: Amounts = Field(
        default_factory=dict, description="Custom Ray resources of each worker.", examples=[{"inference_pool": 1}]
    )
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="How Ray places the workers over nodes."
    )
    runtime_env: PassThrough = Field(
        default_factory=dict,
        description="Ray runtime environment of the stage's workers.",
        examples=[{"env_vars": {"NCCL_DEBUG": "INFO"}}],
    )

    @property
    def most_workers(self) -> int:
        """Workers where the cluster has capacity for all."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers.max

    @property
    def least_workers(self) -> int:
        """Workers below which the stage waits."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers.min


class Identity(Section):
    """What a recipe begins with."""

    name: str = Field(
        description="The recipe's name; run folders are kept under it.",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$",
        json_schema_extra={
            "patternErrorMessage": "1 to 128 letters (a to z), digits, '.', '-' and '_', the first no '.' and no '-'"
        },
        examples=["support_bot"],
    )
    pipeline: list[str] = Field(description="Stages, in order.", min_length=1, max_length=MOST_STAGES)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        42, description="Seed of all that is drawn at random and names no seed of its own."
    )


class Recipe(Identity):
    """The keys of every pipeline. Those of its stages are in a class below this one (see `runner.recipe.extension`)."""

    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    submit: Submit = Submit()
    tracking: Literal["mlflow"] | None = Field(
        None,
        description="Log scores, figures, artifacts' URIs and the recipe of a run there at its end: to the server of "
        "MLFLOW_TRACKING_URI, else to the folder mlruns below storage.root.",
        examples=["mlflow"],
    )
    resources: dict[str, StageResources] = Field(
        default_factory=dict,
        description="Resources of a stage, by its name; a stage without any gets one CPU.",
        examples=[{"train": {"num_workers": 4, "gpus_per_worker": 1}}],
    )
    stages: dict[str, PassThrough] = Field(
        default_factory=dict,
        description="Settings of stages that other packages add, by the stage's name; the stage says which there are.",
        examples=[{"lengths": {"column": "input"}}],
    )

    def resources_of(self, stage: str) -> StageResources:
        """Resources of the named stage, or the default (one worker with one CPU)."""
        return self.resources.get(stage) or StageResources()


class RunOptions(Section):
    """Options of the command line's verbs. They do not belong to the recipe; a recipe file that sets one is refused."""

    only: list[str] | None = Field(
        None, description="Run just these stages, on the results of earlier runs.", examples=[["query"]]
    )
    start_at: str | None = Field(
        None, description="First stage to run; earlier ones must be cached.", examples=["infer"]
    )
    stop_after: str | None = Field(None, description="Last stage to run.", examples=["train"])
    force: list[str] = Field(
        default_factory=list, description="Stages to run even when a cached result exists.", examples=[["train"]]
    )
    trust: list[str] = Field(
        default_factory=list,
        description="Keys of the recipe that may name code, files, packages, processes or hosts; only the command line "
        "can say so (--trust KEY,KEY).",
        examples=[["submit.python"]],
    )
    allow_env: list[str] = Field(
        default_factory=list,
        description="Environment variables that the recipe may read; only the command line can say so "
        "(--allow-env NAME).",
        examples=[["DATA_HOST"]],
    )
    allow: list[str] = Field(
        default_factory=list,
        description="Places outside this machine that the recipe may name, each with what is below it; only the "
        "command line (--allow PLACE,PLACE) and the settings file can say so.",
        examples=[["s3://our-bucket"]],
    )
    runs: list[RunName] = Field(
        default_factory=list,
        description="Runs by name: an id, the start of one that no other has, latest, @best of the newest sweep, or "
        "SWEEP@best.",
        examples=[["latest"]],
    )
    sweep_id: RunName | None = Field(
        None,
        description="A sweep whose best runs are meant, by its id.",
        examples=["20261123-155013"],
    )
    max_parallel_jobs: PositiveInt | None = Field(
        None,
        description="Jobs of a sweep (-m) that run side by side; null: as many as fit the machine or cluster, "
        "and one at a time where a stage excludes that.",
        examples=[2],
    )
    top: PositiveInt = Field(3, description="How many of the sweep's best runs.", examples=[3])
    other: str | None = Field(
        None,
        description="What to compare with: a recipe's name or file, a run's folder, or a run by name.",
        examples=["latest"],
    )
    group: str | None = Field(
        None,
        description="Print the schema of this group's files; null: of a resolved recipe.",
        examples=["model"],
    )
    job: str | None = Field(
        None,
        description="A job that submit has started, by its id.",
        examples=["support_bot-20261123-155013-4c33"],
    )
    follow: bool = Field(
        True, description="Show the job's log until it ends; its exit code is then the job's.", examples=["false"]
    )
    target: Literal["ray-job", "serve-config", "kuberay", "anyscale", "compose", "ci"] | None = Field(
        None,
        description="What to write: ray-job, serve-config, kuberay, anyscale, compose or ci.",
        examples=["kuberay"],
    )
    export_to: str | None = Field(
        None,
        description="The folder to write into; null: export/ in the newest run's folder.",
        examples=["deploy"],
    )
    image: str = Field(
        "recipe-runner:latest", description="The image that `containerfile` builds, by its name.", examples=["bot:1"]
    )
    data: str | None = Field(
        None,
        description="Your rows: a file, a folder, a pattern, hf://org/name, s3://bucket/folder, or https:// of a file.",
        examples=["tickets.csv"],
    )
    user: str | None = Field(
        None, description="The column, or the template, of what is asked; null: recognised.", examples=["text"]
    )
    answer: str | None = Field(
        None, description="The column, or the template, of the answer; null: recognised.", examples=["label"]
    )
    row: Annotated[int, Field(ge=0)] = Field(0, description="Which row to show, from 0.", examples=[3])
    format: Literal["text", "json"] = Field(
        "text", description="Print text for people or one JSON document.", examples=["json"]
    )
