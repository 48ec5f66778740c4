"""Files that other tools wrote, by their own defaults: pandas here; Polars' and DuckDB's are kept in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.readers import read_file

ROWS = [{"q": 'Open, "now"?', "a": "At eight.", "n": 1.5}, {"q": "Two\nlines", "a": "Grüße", "n": None}]
TEXTS = [{"q": row["q"], "a": row["a"], "n": "" if row["n"] is None else "1.5"} for row in ROWS]
Frame = Any


def read(path: Path) -> list[Any]:
    return [row for _, row in read_file(path, path.name)]


WRITTEN: dict[str, tuple[str, Callable[[Frame, Path], Any], list[Any]]] = {
    "CSV": ("x.csv", lambda frame, path: frame.to_csv(path), TEXTS),
    "CSV as for German Excel": (
        "x.csv", lambda frame, path: frame.to_csv(path, sep=";", decimal=",", encoding="utf-8-sig"),
        [{**row, "n": row["n"].replace(".", ",")} for row in TEXTS],
    ),
    "CSV, packed by its name": ("x.csv.gz", lambda frame, path: frame.to_csv(path, index=False), TEXTS),
    "JSON of records": ("x.json", lambda frame, path: frame.to_json(path, orient="records"), ROWS),
    "JSON Lines": ("x.jsonl", lambda frame, path: frame.to_json(path, orient="records", lines=True), ROWS),
    "Parquet": ("x.parquet", lambda frame, path: frame.to_parquet(path), ROWS),
    "Feather": ("x.feather", lambda frame, path: frame.to_feather(path), ROWS),
}  # fmt: skip


@pytest.mark.parametrize("form", WRITTEN)
def test_what_pandas_writes_is_read(tmp_path: Path, form: str) -> None:
    pandas = pytest.importorskip("pandas")
    name, write, meant = WRITTEN[form]
    write(pandas.DataFrame(ROWS), tmp_path / name)
    assert read(tmp_path / name) == meant


@pytest.mark.parametrize("orient", ["columns", "split", "index"])
def test_what_pandas_writes_by_columns_is_refused(tmp_path: Path, orient: str) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(ROWS).to_json(tmp_path / "x.json", orient=orient)
    with pytest.raises(RunnerError, match="holds columns or named objects, not a list of rows") as caught:
        read(tmp_path / "x.json")
    assert "orient='records'" in caught.value.hint


def test_what_powershell_redirects_is_refused_as_utf16(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("q,a\r\nOpen?,At eight.\r\n".encode("utf-16"))
    with pytest.raises(RunnerError, match=r"x\.csv is UTF-16, not UTF-8") as caught:
        read(tmp_path / "x.csv")
    assert "PowerShell" in caught.value.hint


KEPT = sorted((Path(__file__).parent / "written").glob("*.*"))


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_what_polars_and_duckdb_wrote_is_read(path: Path) -> None:
    found = read(path)
    assert not any(isinstance(row, BadRowError) for row in found)
    assert [(row["q"], row["a"]) for row in found] == [(row["q"], row["a"]) for row in ROWS]
    assert [str(row["n"] or "") for row in found] == ["1.5", ""]
    if "nested" in found[0]:
        assert [row["nested"] for row in found] == [{"tags": ["x", "y"], "at": "2024-01-02T03:04:05"}, None]
