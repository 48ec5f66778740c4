"""Prints the table of docs/data.md: `python -m tests.stages.data.forms_table`.

Each cell: the shape's row is written in the form, plain and packed, put into a folder and behind a web server, and read
by what ingest uses. It says how many of these ways gave the Example that was meant.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.shapes.convert import make_example
from stages.data.sources import Wanted, open_splits
from stages.sections.dataset import Dataset

ASKED, SAYS = {"role": "user", "content": "Open?"}, {"role": "assistant", "content": "At eight."}
NO = {"role": "assistant", "content": "No idea."}
PAIR = {"messages": [ASKED], "chosen": [SAYS], "rejected": [NO]}
TALK = {"messages": [ASKED, SAYS]}
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, str], dict[str, Any]]] = {
    "prompt and completion": ("sft", {"q": "Open?", "a": "At eight."}, {"user": "{q}", "assistant": "{a}"}, TALK),
    "alpaca": (
        "sft", {"instruction": "Open?", "input": "", "output": "At eight."},
        {"user": "{instruction}\n{input|}", "assistant": "{output}"}, TALK,
    ),
    "messages": ("sft", {"messages": [ASKED, SAYS]}, {"conversations": "messages"}, TALK),
    "ShareGPT": (
        "sft", {"talk": [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "At eight."}]},
        {"conversations": "talk"}, TALK,
    ),
    "preference, of texts": (
        "dpo", {"prompt": "Open?", "chosen": "At eight.", "rejected": "No idea."}, {"user": "{prompt}"}, PAIR,
    ),
    "preference (TRL)": ("dpo", {"chosen": [ASKED, SAYS], "rejected": [ASKED, NO]}, {"conversations": "chosen"}, PAIR),
    "preference (OpenAI)": (
        "dpo", {"input": {"messages": [ASKED]}, "preferred_output": [SAYS], "non_preferred_output": [NO]},
        {"conversations": "input.messages"}, PAIR,
    ),
    "KTO": (
        "kto", {"q": "Open?", "a": "At eight.", "kto_tag": True}, {"user": "{q}", "assistant": "{a}"},
        {**TALK, "label": True},
    ),
    "text": ("pt", {"text": "Once upon a time."}, {}, {"text": "Once upon a time."}),
}  # fmt: skip


def _json_lines(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _json_array(row: dict[str, Any]) -> bytes:
    return json.dumps([row], indent=1).encode()


def _table(delimiter: str, row: dict[str, Any]) -> bytes:
    """What holds more than a text is JSON in its cell."""
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter)
    writer.writerows([row, [value if isinstance(value, str) else json.dumps(value) for value in row.values()]])
    return sink.getvalue().encode()


def _parquet(row: dict[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row]), sink)
    return sink.getvalue().to_pybytes()


def _arrow(row: dict[str, Any]) -> bytes:
    import pyarrow as pa

    table, sink = pa.Table.from_pylist([row]), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _text(row: dict[str, Any]) -> bytes:
    return "".join(value if isinstance(value, str) else json.dumps(value) for value in row.values()).encode() + b"\n"


def _zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(data, codec="zstd", asbytes=True)


FORMS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "jsonl": _json_lines, "json": _json_array, "csv": partial(_table, ","), "tsv": partial(_table, "\t"),
    "parquet": _parquet, "arrow": _arrow, "txt": _text,
}  # fmt: skip
PACKINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": _zstandard}
BEGIN, END = "<!-- made by python -m tests.stages.data.forms_table -->", "<!-- end -->"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder behind a web server; gives its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cell(shape: str, form: str, sources: tuple[str, ...], folder: Path) -> str:
    """How many ways gave the shape's Example: `6 of 6`; or `refused` where none did and each gave a reason."""
    stage, row, prompt, meant = SHAPES[shape]
    good, refused, ways = 0, 0, 0
    for suffix, pack in PACKINGS.items():
        name = f"train.{form}{suffix}"
        (folder / name).write_bytes(pack(FORMS[form](row)))
        for source in sources:
            ways += 1
            try:
                good += _read(source, name, stage, prompt) == meant
            except (BadRowError, RunnerError):
                refused += 1
    return "refused" if refused == ways else f"{good} of {ways}"


def _read(source: str, name: str, stage: str, prompt: dict[str, str]) -> dict[str, Any]:
    section = {"source": source, "files": {"train": name, "val": None, "test": None}, "prompt": prompt}
    dataset = Dataset.model_validate(section)
    with TemporaryDirectory() as raw:
        wanted = Wanted(dataset, {"train": (name,)}, 0, Path(raw))
        ((place, row),) = open_splits(wanted, lambda done, total: None)["train"]
    if isinstance(row, BadRowError):
        raise row
    made = make_example(dataset, stage, "train")(row, "train-000000", place)
    fields = ("messages", "chosen", "rejected", "label", "text")
    return {each: value for each in fields if (value := getattr(made, each)) not in (None, [])}


def table_row(shape: str) -> str:
    """A line of the table."""
    with TemporaryDirectory() as made, served(Path(made)) as url:
        cells = [cell(shape, form, (made, url), Path(made)) for form in FORMS]
    return f"| {shape} | {' | '.join(cells)} |"


def head() -> str:
    return f"| Shape | {' | '.join(FORMS)} |\n|{'---|' * (len(FORMS) + 1)}"


if __name__ == "__main__":
    sys.stdout.write("\n".join([head(), *map(table_row, SHAPES)]) + "\n")
