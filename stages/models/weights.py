"""What a training leaves, and what is published of it: a LoRA adapter, or a whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact
from stages.models.adapter import CONFIG, adapter_name, largest_rank


@dataclass(frozen=True)
class Adapter:
    """id: its name in the store and at the endpoint, "" until it is published. uri: of the folder of its files.
    sha256: of their content. rank: the largest of its matrices. base_model: `model.source` of its training."""

    id: str
    uri: str
    sha256: str
    rank: int
    base_model: str

    @classmethod
    def of(cls, artifact: Artifact) -> Adapter:
        """The adapter that the artifact holds. Raises RunnerError when it holds none, or lacks what says so."""
        weights = weights_of(artifact)
        if isinstance(weights, WholeModel):
            raise RunnerError(
                f"{artifact.uri} holds a whole model and no LoRA adapter",
                "Set train.args.finetuning_type=lora.",
            )
        return weights

    @property
    def store(self) -> str:
        """URI of the folder of adapters that it is in."""
        return self.uri.rstrip("/").rpartition("/")[0]

    def name_at(self, model_id: str) -> str:
        """The model name that requests to an endpoint use for it."""
        return adapter_name(model_id, self.id)

    def meta(self) -> dict[str, Any]:
        """What stands in the artifact's meta."""
        return {"kind": "adapter", "adapter_id": self.id, "rank": self.rank, "base_model": self.base_model}


@dataclass(frozen=True)
class WholeModel:
    """All weights, trained. uri: of the folder of its files. base_model: `model.source` of its training."""

    uri: str
    sha256: str
    base_model: str

    def meta(self) -> dict[str, Any]:
        """What stands in the artifact's meta."""
        return {"kind": "model", "base_model": self.base_model}


def found_weights(artifact: Artifact, base_model: str) -> Adapter | WholeModel:
    """What a training has left in a local folder, by its files."""
    config = artifact.path / CONFIG
    if not config.is_file():
        return WholeModel(artifact.uri, artifact.sha256, base_model)
    return Adapter("", artifact.uri, artifact.sha256, largest_rank(config.read_bytes()), base_model)


def weights_of(artifact: Artifact) -> Adapter | WholeModel:
    """What the artifact holds, by its meta. Raises RunnerError when another version of the runner made it."""
    meta = artifact.meta
    try:
        if meta["kind"] == "model":
            return WholeModel(artifact.uri, artifact.sha256, meta["base_model"])
        return Adapter(meta["adapter_id"], artifact.uri, artifact.sha256, meta["rank"], meta["base_model"])
    except KeyError as error:
        raise RunnerError(
            f"{artifact.uri} does not say its {error.args[0]}: another version of the runner made it",
            "Train and publish again: `force=[train,publish]`.",
        ) from error
