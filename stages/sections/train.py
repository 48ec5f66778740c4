"""Fine-tuning and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from runner.recipe.schema import Names, PassThrough, PositiveInt, RunName, Section


class Checkpoints(Section):
    """Training checkpoints in the run's storage."""

    keep: PositiveInt = Field(2, description="How many of the newest complete checkpoints to keep.")
    every_s: Annotated[float, Field(ge=0, le=2_000_000)] = Field(
        300.0,
        description="Seconds of training after which a checkpoint is saved besides those of train.args.save_strategy, "
        "so that little is lost when the machine ends; 0: never. Where saving takes long it is done more seldom, at "
        "most about a twentieth of the time. A training that the library cannot resume (ppo) saves none.",
    )
    on_stop_s: Annotated[float, Field(ge=0, le=2_000_000)] = Field(
        60.0,
        description="Seconds that the workers have to save a checkpoint when the run is interrupted (SIGTERM, Ctrl-C); "
        "a second signal ends the wait, 0 saves none.",
    )


class Train(Section):
    """Fine-tuning by a trainer inside Ray Train."""

    other_names: ClassVar[Mapping[str, str]] = {
        "method": "stage",
        "type": "stage",
        "backend": "trainer",
        "framework": "trainer",
    }

    other_values: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "stage": {
            **{
                name: f"Set train.stage=dpo and train.args.pref_loss={name} (train.trainer=llamafactory)."
                for name in ("orpo", "simpo", "ipo")
            },
            **dict.fromkeys(("cpt", "pretrain", "pretraining", "clm"), "Set train.stage=pt."),
            **dict.fromkeys(("reward", "reward_model"), "Set train.stage=rm."),
        }
    }

    trainer: str = Field(
        "llamafactory",
        description="The library that trains. One that cannot share the runner's packages has its own environment.",
    )
    stage: Literal["pt", "sft", "rm", "ppo", "dpo", "kto"] = Field(
        "sft", description="The method: pt, sft, dpo and kto of every trainer, rm and ppo of llamafactory alone."
    )
    lora_rank: PositiveInt = Field(8, description="Rank of the LoRA matrices.")
    lora_target: Names = Field(
        "all",
        description="Modules to adapt: a list of names, or all for all linear modules.",
        examples=[["q_proj", "v_proj"]],
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="Peak learning rate.")
    num_epochs: Annotated[float, Field(gt=0, le=1_000_000)] = Field(1.0, description="Passes over the training set.")
    max_samples: PositiveInt | None = Field(
        None, description="The most training rows to use; null: all.", examples=[1000]
    )
    reasoning: Literal["learn", "strip"] = Field(
        "learn",
        description="What training makes of an answer's reasoning (reasoning_content, or a <think> block before it): "
        "learn it with the answer, or leave it out.",
    )
    too_long: Literal["fail", "drop", "cut_start", "cut_middle"] = Field(
        "fail",
        description="What becomes of a sample of more than train.args.cutoff_len (TRL: max_length) tokens: the run "
        "ends before training, the sample is left out, or its prompt loses tokens from its start or its middle. The "
        "last answer is whole.",
    )
    start_from: RunName | None = Field(
        None,
        description="The run below storage.root whose adapter or whole model training continues, of the same base "
        "model; null: none. Preferences are learned against it as the reference.",
        examples=["20261123-155013-4c33aa"],
    )
    args: PassThrough = Field(
        default_factory=dict,
        description="Arguments of the trainer's library by its own names (LLaMA-Factory's, or TRL's), but those that "
        "the recipe has a key for.",
        examples=[{"cutoff_len": 2048, "per_device_train_batch_size": 4, "bf16": True}],
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        2, description="Times that training restarts from the newest checkpoint after a dead worker."
    )
    checkpoints: Checkpoints = Checkpoints()
    storage_path: str | None = Field(
        None,
        description="Where Ray Train keeps checkpoints: a folder that all nodes see, or s3://; null: the run's folder.",
        examples=["s3://my-bucket/checkpoints"],
    )
