"""The reporter as a callback of transformers' trainer, which every trainer here builds on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.trainers.worker.precision import widen
from stages.trainers.worker.reporter import Reporter


class StoppedError(Exception):
    """The run is to end; what was trained so far is saved."""


def require_warm(warmup_steps: int, num_steps: int) -> None:
    """Raise RunnerError for a training that ends before its learning rate is the recipe's."""
    if warmup_steps > num_steps:
        raise RunnerError(
            f"{warmup_steps} steps of warm-up are more than the training's {num_steps}: its learning rate would "
            "never be train.learning_rate",
            "Lower train.args.warmup_steps, or raise train.num_epochs.",
        )


def save_in_one_piece() -> None:
    """Have what is saved from now on be the whole model, where FSDP has saved the shard of each worker so far."""
    from accelerate.state import AcceleratorState, is_initialized

    plugin = getattr(AcceleratorState(), "fsdp_plugin", None) if is_initialized() else None
    if plugin is not None:
        plugin.set_state_dict_type("FULL_STATE_DICT")


def callback(reporter: Reporter) -> Any:
    """The reporter as a callback of transformers' trainer."""
    from transformers import TrainerCallback

    class Forward(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            require_warm(args.get_warmup_steps(state.max_steps), state.max_steps)
            widen(kwargs.get("model"))
            rows: Any = getattr(
                kwargs.get("train_dataloader"), "dataset", None
            )  # a stream has no length, PPO no loader
            reporter.begin(args, state, len(rows) if hasattr(rows, "__len__") else None)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.flush()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.step(state, log_follows=control.should_log)
            seen = reporter.look(args.device)
            if any(seen) and state.global_step < state.max_steps:
                control.should_save = True  # where a node leaves, training continues with it until it is gone
                control.should_training_stop = control.should_training_stop or seen.is_stopping
            _log_what_is_kept(state, control)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _log_what_is_kept(state, control)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            reporter.log(state, logs or {})

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.evaluated()

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.saved(Path(args.output_dir, f"checkpoint-{state.global_step}"), Path(args.output_dir))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.flush(wait=True)
            save_in_one_piece()
            if state.global_step < state.max_steps and reporter.is_stopping:
                raise StoppedError

    return Forward()


def _log_what_is_kept(state: Any, control: Any) -> None:
    """Have the trainer log, and so the reporter see the loss, before a checkpoint, an evaluation and the end, whatever
    `train.args` says of logging: no weights are kept whose loss is not a number."""
    is_last = control.should_training_stop or state.global_step >= state.max_steps
    control.should_log = control.should_log or control.should_save or control.should_evaluate or is_last
