"""Files of this process's Ray node: where it and its workers write what they say."""

from __future__ import annotations

from pathlib import Path


def logs_folder() -> Path | None:
    """The node's folder of log files; None in a process that no node was started for."""
    from ray._private.worker import global_worker

    return Path(global_worker.node.get_logs_dir_path()) if global_worker.node is not None else None


def own_stderr() -> Path:
    """The file that has what this worker and its children have written to stderr."""
    from ray._private.worker import global_worker

    return Path(global_worker.get_err_file_path())
