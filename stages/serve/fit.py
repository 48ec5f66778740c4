"""Whether something may be served: the gate passed it, it is what was evaluated, and the store holds just that."""

from __future__ import annotations

from runner.errors import GateError, RunnerError
from runner.storage.artifact import Artifact
from stages.evaluate.scores import Scores
from stages.models.adapter import find_adapter
from stages.models.weights import Adapter


def passed(adapter: Artifact | None, scores: Artifact | None, *, whose: str = "this run") -> Adapter | None:
    """The adapter, if the gate passed it and the scores are of it; None for the base model alone.

    scores: None where the pipeline evaluates nothing. whose: the run, for messages.
    Raises GateError when the gate refused, RunnerError when the scores are of another adapter.
    """
    found = Adapter.of(adapter) if adapter is not None else None
    if scores is None:
        return found
    judged = Scores.read(scores)
    if not judged.verdict.passed:
        raise GateError(
            f"the gate refused what {whose} evaluated: {'; '.join(judged.verdict.missed)}",
            "Train something better, or lower evaluate.require.",
        )
    if found is not None and judged.adapter_sha256 != found.sha256:
        raise RunnerError(
            f"the adapter of {whose} (sha256 {found.sha256[:12]}) is not the one that it evaluated "
            f"({str(judged.adapter_sha256)[:12]} in {scores.uri})",
            "Run infer and evaluate again: `force=[infer,evaluate]`.",
        )
    return found


def fit_to_serve(
    adapter: Artifact | None, scores: Artifact | None, endpoint_url: str | None, *, whose: str = "this run"
) -> Adapter | None:
    """As `passed`, if the store holds the adapter complete and with this content. endpoint_url: of an S3 store."""
    found = passed(adapter, scores, whose=whose)
    if found is None:
        return None
    from runner.storage.store import open_store

    stored = find_adapter(open_store(found.store, endpoint_url=endpoint_url), found.id)
    if stored.sha256 != found.sha256:
        raise RunnerError(
            f"{stored.uri} holds another adapter (sha256 {stored.sha256[:12]}) than {whose} published "
            f"({found.sha256[:12]})",
            "Publish again, or restore the store.",
        )
    return found
