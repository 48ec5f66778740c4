"""Where the rows come from, their splits and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from runner.recipe.schema import PositiveInt, Section
from stages.sections.prompt import Prompt

_DATA_FILE = re.compile(
    r"[^/]+\.(jsonl|ndjson|json|csv|tsv|tab|parquet|arrow|feather|txt|text)(\.(gz|gzip|zst|zstd|bz2|xz|zip))?"
    r"|[^/]+\.zip",
    re.IGNORECASE,
)


def data_file(source: str) -> str | None:
    """The name of the file, where `dataset.source` is one file of rows and not a folder of them."""
    if source.startswith(("generated://", "hf://")):
        return None
    path = source.partition("?")[0] if "://" in source else source
    name = path.rpartition("/")[2]
    return name if _DATA_FILE.fullmatch(name) else None


class SplitFiles(Section):
    """Files of each split, relative to `dataset.source`: a name, a pattern with `*`, or a list of both; null where the
    dataset has none."""

    train: str | list[str] | None = Field("train.jsonl", description="Training rows.", examples=["train-*.parquet"])
    val: str | list[str] | None = Field(
        "val.jsonl", description="Validation rows, evaluated during training if asked for."
    )
    test: str | list[str] | None = Field(
        "test.jsonl", description="Rows that batch inference predicts and evaluate scores."
    )


class SplitLimits(Section):
    """The most rows to use of each split; null uses all."""

    train: PositiveInt | None = Field(None, description="Rows of the training split.", examples=[1000])
    val: PositiveInt | None = Field(None, description="Rows of the validation split.", examples=[64])
    test: PositiveInt | None = Field(None, description="Rows of the test split.", examples=[200])


Part = Annotated[float, Field(gt=0, lt=1)] | PositiveInt


class HeldOut(Section):
    """Splits made of the training rows: by shares, where rows with the same prompt stay in one split and so do groups,
    or by a column that names each row's split."""

    val: Part | None = Field(None, description="Validation rows: a share below 1, or a number.", examples=[0.05])
    test: Part | None = Field(None, description="Test rows: a share below 1, or a number.", examples=[500])
    by: str = Field(
        "hash",
        description="What stays in one split: `hash`, rows with the same prompt, or the column that names the group.",
        examples=["hash", "customer"],
    )
    stratify: str | None = Field(
        None, description="Column whose values are to be as frequent in every split.", examples=["label"]
    )
    seed: int | None = Field(
        None, description="Another seed, another choice of rows; null: the recipe's seed.", examples=[7]
    )
    column: str | None = Field(
        None,
        description="Instead of shares: the column that names each row's split, such as train, validation or dev, "
        "test.",
        examples=["split"],
    )
    values: dict[str, Literal["train", "val", "test", "none"]] = Field(
        default_factory=dict,
        description="What other values of that column mean; none leaves their rows out.",
        examples=[{"fold9": "val", "unlabelled": "none"}],
    )


class Dataset(Section):
    """Rows of any common file, recognised by content: JSON Lines, JSON, CSV, Parquet, Arrow or text."""

    other_names: ClassVar[Mapping[str, str]] = {
        "path": "source",
        "data": "source",
        "url": "source",
        "file": "source",
        "train": "files.train",
        "val": "files.val",
        "valid": "files.val",
        "validation": "files.val",
        "test": "files.test",
        "template": "prompt",
        "limit": "max_rows",
        "max_samples": "max_rows",
    }

    source: str = Field(
        min_length=1,
        description="Folder of the split files: a local folder, s3://, gs://, az://, https://, or package://<dist>/... "
        "in an installed Python package; one file of these; hf://org/name of the hub; or generated://viggo?... (a "
        "grammar that writes rows of ViGGO's shape) or generated://pictures?... (drawn shapes, to count and name).",
        examples=["s3://viggo-ds", "data/viggo", "hf://org/name?split=train", "generated://viggo?train=512&test=100"],
    )
    files: SplitFiles = SplitFiles()
    split: HeldOut | None = Field(
        None,
        description="Hold validation and test rows out of the training rows.",
        examples=[{"val": 0.05, "test": 500}],
    )
    max_rows: SplitLimits = SplitLimits()
    max_rows_by: Literal["sample", "head"] | None = Field(
        None,
        description="Which rows `max_rows` uses: a sample drawn by the recipe's seed, or the first ones. null: the "
        "first ones of generated rows, and a sample of all others.",
        examples=["head"],
    )
    prompt: Prompt = Prompt()
    ignore_keys: list[str] = Field(
        default_factory=list,
        description="Keys of messages, their calls and tools to leave out. Any other key that is not known is refused. "
        "Also columns next to the messages that are refused by name, such as chat_template_kwargs.",
        examples=[["timestamp"]],
    )
    roles: dict[str, Literal["system", "user", "assistant", "tool"]] = Field(
        default_factory=dict,
        description="Roles of messages by the names that the rows have for them, where these are not usual ones.",
        examples=[{"customer": "user", "agent": "assistant"}],
    )
    on_bad_row: Literal["fail", "skip"] = Field(
        "fail",
        description="A row that cannot be read or lacks a column of the prompt: stop, or leave it out and count it.",
    )
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="With on_bad_row=skip, the largest share of a split's rows that may be left out."
    )
    max_gib: Annotated[float, Field(gt=0)] = Field(
        200.0,
        description="GiB that the files of `source` may have together, packed ones as they are; a source with more is "
        "refused. A packed file holds 256 MiB, or 200 times its size, at most.",
        examples=[1000],
    )
    anonymous: bool = Field(False, description="Read s3:// without credentials (public buckets).")
    endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/@]+/?[^\s@]*$",
        json_schema_extra={"patternErrorMessage": "an address without user and password: http://HOST:PORT"},
        description="S3 endpoint of the source; null follows boto3's own chain.",
        examples=["http://127.0.0.1:9000"],
    )

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A source of one file has that, a hub's dataset its split; what is held out of the training rows has none."""
        source, files, split = values.get("source"), values.get("files", {}), values.get("split")
        files = files.model_dump(exclude_unset=True) if isinstance(files, SplitFiles) else files
        split = split.model_dump() if isinstance(split, HeldOut) else split
        if not isinstance(source, str) or not isinstance(files, dict):
            return values
        implied: dict[str, str | None] = {}
        if source.startswith("hf://"):
            named = re.search(r"[?&]split=([^&]+)", source)
            implied = {"train": named[1] if named else "train", "val": None, "test": None}
        elif (name := data_file(source)) is not None:
            implied = {"train": name, "val": None, "test": None}
        if isinstance(split, dict):
            implied |= {each: None for each in ("val", "test") if (split.get("column") or split.get(each)) is not None}
        return values | {"files": implied | files}

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return cls.completed(values) if isinstance(values, dict) else values
