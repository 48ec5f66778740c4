"""Tools, from rows to an endpoint whose answers are those of batch inference: a tiny model, real parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.stages.models.families import save_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}]
ITEMS = ("rye", "oat")
STEPS = 150
# Ends turns otherwise than the tokenizer does, and writes calls as Hermes does, in few tokens.
TEMPLATE = """{%- if tools %}
{{- '<|im_start|>system\\n' + (tools | map(attribute='function.name') | join(', ')) + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + ({'name': call.function.name, 'arguments': call.function.arguments} | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def called(item: str) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "stock", "arguments": {"item": item}}}
    return {
        "messages": [{"role": "user", "content": item}, {"role": "assistant", "content": None, "tool_calls": [call]}],
        "tools": TOOLS,
    }


def run(folder: Path, family: str, row: Any, *overrides: str) -> dict[str, Any]:
    """The summary of a whole run over two questions, each of them many times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_model(family, folder / "model", spread=0.2)
    for name, times in (("train", 40), ("test", 1)):
        rows = [json.dumps(row(item)) for _ in range(times) for item in ITEMS]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    command = [
        sys.executable, "-m", "runner", "run", "recipe=viggo_quickstart", f"storage.root={folder}/runs",
        f"storage.artifacts={folder}/artifacts", f"model.source={folder}/model", "model.architecture=null",
        f"dataset.source={folder}", "dataset.files.val=null", "dataset.prompt.user=null",
        "dataset.prompt.assistant=null", "dataset.prompt.conversations=messages", "serve.port=0",
        "evaluate.require={}", "evaluate.compare_base=false", "evaluate.slices=[]", "query.num_rows=2",
        "train.lora_rank=32", "train.learning_rate=1e-2", f"train.args.max_steps={STEPS}",
        "infer.sampling.max_tokens=100",
        *overrides,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout
    summary: dict[str, Any] = json.loads(((folder / "runs" / "latest").resolve() / "summary.json").read_text())
    return summary


def test_calls_are_learned_and_the_endpoint_gives_those_of_batch_inference(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(TEMPLATE, encoding="utf-8")
    summary = run(
        tmp_path, "base", called, f"model.chat_template={tmp_path}/own.jinja", "model.tool_parser=hermes",
        "evaluate.metrics=[exact_match,calls_match,call_names,call_arguments]",
    )  # fmt: skip
    scores, query = summary["scores"]["tuned"], summary["query"]
    assert scores["call_names"] == 1.0
    assert scores["calls_match"] == scores["exact_match"] == 1.0
    assert query["matches_batch"] is True
    assert [line["tuned"]["calls"] for line in query["rows"]] == [
        [{"name": "stock", "arguments": {"item": item}}] for item in ITEMS
    ]
    assert {line["tuned"]["finish_reason"] for line in query["rows"]} == {"tool_calls"}
