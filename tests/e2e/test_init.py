"""From a CSV of labelled tickets to a served classifier, by `init --yes` and `run` alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import processes, serving
from tests.paths import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
WORDS = {
    "billing": ("invoice", "refund", "card", "payment"),
    "login": ("password", "account", "email", "sign-in"),
    "shipping": ("parcel", "courier", "delivery", "address"),
}
TINY = (
    "train.num_epochs=1",
    "evaluate.compare_base=false",
    "train.args.eval_strategy=no",
    "train.args.eval_steps=null",
)


def write_tickets(path: Path, number: int = 60) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for at in range(number):
            label = list(WORDS)[at % 3]
            words = WORDS[label]
            table.writerow([f"The {words[at % 4]} of order {at} is wrong, see {words[(at + 1) % 4]}", label])


def test_labelled_tickets_become_a_served_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tickets(tmp_path / "tickets.csv")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = processes()
    command = [sys.executable, "-m", "runner", "init", "--yes", "data=tickets.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "as training learns it" in done.stdout
    assert "run recipe=tickets.yaml" in done.stdout
    with serving(tmp_path / "run.log", "recipe=tickets.yaml", *TINY) as (url, _):
        with urllib.request.urlopen(f"{url}/models", timeout=30) as answer:
            (model,) = [each["id"] for each in json.load(answer)["data"] if ":" in each["id"]]
        messages = [{"role": "user", "content": "The invoice of order 7 is wrong, see refund"}]
        body = json.dumps({"model": model, "messages": messages, "max_tokens": 8}).encode()
        request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"].strip()
    assert not processes() - before
