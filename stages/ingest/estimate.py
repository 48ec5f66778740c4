"""What ingest will download."""

from __future__ import annotations

from collections.abc import Iterator

from runner.pipeline.estimates.figure import Estimate, Known, unknown
from runner.pipeline.estimates.rates import plain_time
from stages.models.known import known_model
from stages.sections.model import is_local
from stages.sections.recipe import Recipe


def estimate(known: Known[Recipe]) -> Iterator[Estimate]:
    """Bytes to download, and the time."""
    model, source = known_model(known), known.recipe.model.source
    if model.folder is not None:
        yield Estimate("download model", 0, "bytes", f"it lies in {model.folder}")
    elif source.startswith("package://"):
        yield Estimate("download model", 0, "bytes", f"converted from the installed package: {source}")
    elif is_local(source):
        yield unknown("download model", "bytes", f"{source} is a local folder that cannot be used")
    elif model.weights_bytes is None:
        yield unknown("download model", "bytes", model.basis)
    else:
        basis = f"{model.num_params:,} parameters, {model.basis}; without the tokenizer"
        yield Estimate("download model", model.weights_bytes, "bytes", basis)
    data = known.recipe.dataset.source
    if data.startswith("generated://") or "://" not in data:
        where = "the rows are generated" if "://" in data else f"{data} is on this machine"
        yield Estimate("download data", 0, "bytes", where)
    else:
        yield unknown("download data", "bytes", f"{data}: the size is known once it has been read")
    yield plain_time(known, "ingest")
