"""The light base: an installation without the extra `stack`, which has no package that a run needs."""

from __future__ import annotations

from runner.errors import UsageError
from runner.recipe.machine import pip_install

# Modules of the extra `stack` (pyproject.toml), and of what its packages need themselves.
_STACK = frozenset({
    "PIL", "datasets", "fsspec", "huggingface_hub", "jinja2", "matplotlib", "numpy", "psutil", "pyarrow", "ray",
    "requests", "tokenizers",
})  # fmt: skip


def not_installed(error: ModuleNotFoundError) -> UsageError | None:
    """What to install, where the module is of the extra `stack`; None for another one."""
    module = (error.name or "").partition(".")[0]
    if module not in _STACK:
        return None
    what = f"this command needs the package {module}, which is not installed: the light base has no stack to run on"
    return UsageError(what, f"Run: {pip_install(repr('recipe-runner[stack]'))}")
