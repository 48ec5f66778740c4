"""axolotl's own training command, `axolotl train FILE`, on the rows that the stage has made tokens of.

What differs from a person's use of it comes by a plugin, which is how axolotl takes rows and callbacks of others: the
stage's rows, their order and the first weights, so that both sides compute the same, and a clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import yaml
from axolotl.common.datasets import TrainDatasetMeta
from axolotl.integrations.base import BasePlugin

from stages.trainers.axolotl.worker import places
from stages.trainers.worker.log import log_file


class Stage(BasePlugin):  # type: ignore[misc]
    """given: the arguments of the stage's trainer. clock: a callback."""

    given: ClassVar[dict[str, Any]]
    clock: ClassVar[Any]

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> Any:
        from datasets import load_from_disk

        rows = load_from_disk(self.given["tokenized_path"])
        return TrainDatasetMeta(rows["train"], rows.get("validation"))

    def pre_model_load(self, cfg: Any) -> None:
        from transformers import set_seed

        set_seed(cfg.seed)

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = self.given["trainer"]
        return arguments

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any]:
        return [self.clock, log_file(Path(self.given["output_dir"]))]


def train(args: dict[str, Any], clock: Any) -> None:
    """Run the command on a file with the stage's arguments, which is next to its output folder."""
    from axolotl.cli.train import do_cli

    Stage.given, Stage.clock = args, clock
    file = Path(args["output_dir"]).with_suffix(".yaml")
    file.write_text(yaml.safe_dump({**args["config"], **places(args), "plugins": [f"{__name__}.{Stage.__name__}"]}))
    do_cli(str(file))
