"""The type that a model is trained in on CPUs."""

from __future__ import annotations

import pytest

from stages.trainers.worker import precision

pytestmark = pytest.mark.environment("llamafactory")


@pytest.mark.parametrize(("computed", "widened"), [("bfloat16", False), ("float32", True)])
def test_bfloat16_is_widened_where_the_cpu_does_not_compute_in_it(
    computed: str, widened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(precision, "cpu_dtype", lambda: computed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, dtype=torch.bfloat16), torch.nn.Linear(4, 2))
    trained = model[1].weight
    optimizer = torch.optim.SGD([trained], lr=1.0)
    assert precision.widen(model) is widened
    assert model[0].weight.dtype == (torch.float32 if widened else torch.bfloat16)
    assert optimizer.param_groups[0]["params"][0] is model[1].weight is trained
    assert precision.widen(None) is False
