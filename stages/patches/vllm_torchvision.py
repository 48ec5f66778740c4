"""Let vLLM import its models with images where there is no torchvision: it has no build for CPUs.

transformers' processors by PIL are used there. vLLM imports those by torchvision as well, for their types alone.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2", "torchvision.transforms.v2.functional")


class _Missing(ModuleType):
    """A module all of whose names can be imported and none used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(f"torchvision is not installed, and {self.__name__}.{name} is asked for")


def stand_in() -> None:
    """Put modules of torchvision's names where it is missing. transformers still counts it as missing."""
    if "torchvision" in sys.modules or find_spec("torchvision") is not None:
        return
    from transformers.utils import is_torchvision_available

    is_torchvision_available()  # which it remembers
    for name in _NAMES:
        module = _Missing(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, module)
