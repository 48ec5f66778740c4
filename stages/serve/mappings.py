"""Keys of the recipe whose values go to Ray Serve."""

from __future__ import annotations

from runner.recipe.arguments import RAY
from runner.recipe.arguments.mapped import Mapped

_OTHER_NAMES = {
    "max_concurrent_queries": ("max_ongoing_requests",),
    "target_num_ongoing_requests_per_replica": ("target_ongoing_requests",),
}

MAPPINGS = (
    Mapped(
        "serve.autoscaling",
        "autoscaling option",
        lambda recipe: recipe.serve.autoscaling,
        RAY,
        ("autoscaling",),
        other_names=_OTHER_NAMES,
    ),
    Mapped(
        "serve.deployment",
        "deployment option",
        lambda recipe: recipe.serve.deployment,
        RAY,
        ("deployment",),
        {
            "name": "the deployment is named after serve.model_id",
            "user_config": "what replicas learn while they run is the endpoint's own",
            "autoscaling_config": "set serve.autoscaling",
            "num_replicas": "set serve.autoscaling.min_replicas and max_replicas",
            "placement_group_bundles": "set resources.serve",
            "placement_group_strategy": "set resources.serve.placement_strategy",
            "placement_group_bundle_label_selector": "set resources.serve.custom",
        },
        other_names=_OTHER_NAMES,
    ),
)
