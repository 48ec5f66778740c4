"""What a run serves, and how a person uses it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact


@dataclass(frozen=True)
class Endpoint:
    """url: of the OpenAI API. base, adapter: names of the models that requests use, None without an adapter.
    others: adapters of other runs by run. sampling: fields of a request that answers as batch inference did."""

    url: str
    base: str
    adapter: str | None = None
    adapter_sha256: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    asks_for_key: bool = False

    @property
    def models(self) -> list[str]:
        """Names of all models, the base model first."""
        return [self.base, *([self.adapter] if self.adapter else []), *self.others.values()]

    def artifact(self, sha256: str) -> Artifact:
        """The stage's artifact. sha256: of what it serves and how."""
        meta = {name: value for name, value in asdict(self).items() if name != "url"}
        return Artifact(name="endpoint", uri=self.url, sha256=sha256, kind="endpoint", meta=meta)

    @classmethod
    def of(cls, artifact: Artifact) -> Endpoint:
        """Raises RunnerError when another version of the runner made the artifact."""
        try:
            return cls(url=artifact.uri, **artifact.meta)
        except TypeError as error:
            raise RunnerError(f"{artifact.uri} is described by another version of the runner: {error}") from error

    def usage(self, asked: Mapping[str, Any]) -> str:
        """Lines for a person: URL, model names, a curl command that asks. asked: `messages`, and `tools` if any."""
        body = json.dumps({"model": self.models[-1], **asked, **self.sampling}, ensure_ascii=False)
        key = '-H "Authorization: Bearer $API_KEY" ' if self.asks_for_key else ""
        return "\n".join(
            [
                f"URL     {self.url}",
                f"models  {', '.join(self.models)}",
                f"curl -s {self.url}/chat/completions {key}-H 'Content-Type: application/json' -d {shlex.quote(body)}",
            ]
        )
