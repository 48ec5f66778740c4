"""Options of Ray Serve's deployments, as classes: the tables of known keys are generated from them."""

from __future__ import annotations

import functools
import operator
from typing import Any, get_args


def deployment_class() -> Any:
    """Ray Serve 2.60's model of a deployment's options, with their bounds."""
    from ray.serve._private.config import DeploymentConfig

    return DeploymentConfig


def without_default(hint: Any) -> Any:
    """A type hint of `serve.deployment` without Serve's mark for "not given", an enum of its own."""
    from ray.serve._private.utils import DEFAULT

    return functools.reduce(operator.or_, [each for each in get_args(hint) or (hint,) if each is not DEFAULT])
