"""Obtaining the base model: from a hub, an S3 prefix, a local folder, or a GGUF file inside an installed package.

Whatever the source, the result is a local Hugging Face folder with safetensors weights. Pickled weights are never
downloaded, nor is a repository's Python code unless the recipe trusts it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from runner.cluster.environments import Chosen
from runner.cluster.environments.call import call
from runner.errors import DamagedError, RunnerError, first_line
from runner.storage import s3
from runner.storage.artifact import Artifact, digest_files
from runner.storage.checksums import check_stored
from runner.storage.digest import digest_json
from runner.storage.small import read_small
from runner.storage.verify import Digests
from stages.models import gguf
from stages.models.cache import digests_of, made_once
from stages.sections.model import is_local

_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_TEMPLATES = "additional_chat_templates/*.jinja"  # those of transformers for tools and such
_CODE = ["*.py"]
_UNWANTED = ["*/*", "consolidated*.safetensors"]  # other formats' folders; the same weights in their maker's own layout
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken", "tekken.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NUM_PARALLEL_FILES = 4
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOOK_S = 5.0

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from any thread."""


def obtain_model(
    source: str,
    revision: str | None,
    cache: Path,
    endpoint_url: str | None = None,
    trust_remote_code: bool = False,
    on_bytes: OnBytes = lambda done, total: None,
) -> Path:
    """The local folder of the model, obtained into the cache first unless it is there.

    source: as `model.source`. revision: of a hub id. endpoint_url: of an `s3://` source. A download that was cut off
    resumes where it stopped; two processes that want the same model do the work once.
    Raises RunnerError when the model cannot be had, or is not a Hugging Face folder with safetensors.
    """
    wanted = _WANTED + (_CODE if trust_remote_code else [])
    if source.startswith("package://"):
        folder = _from_package(source, cache)
    elif source.startswith("s3://"):
        folder = _from_s3(source, cache, endpoint_url, wanted, on_bytes)
    elif is_local(source):
        folder = Path(source).expanduser().absolute()
    elif _HUB_ID.fullmatch(source):
        folder = _from_hub(source, revision, cache, wanted)
    else:
        raise RunnerError(
            f"model.source={source} names no model",
            "Give a hub id (owner/name), s3://bucket/prefix, a folder, or package://<dist>/<file>.gguf.",
        )
    check_model_folder(folder, source)
    return folder


def obtain_tokenizer(
    source: str, revision: str | None, cache: Path, endpoint_url: str | None = None, trust_remote_code: bool = False
) -> Path:
    """A local folder with the model's tokenizer and config; its weights are not obtained.

    Raises RunnerError when it cannot be had.
    """
    wanted = [name for name in _WANTED if name != "*.safetensors"] + (_CODE if trust_remote_code else [])
    if source.startswith("package://"):
        distribution, _, name = source.removeprefix("package://").partition("/")
        path = gguf.find_packaged_file(distribution, name, gguf.ENVIRONMENT)
        whole = cache / "gguf" / gguf.cache_name(distribution, path, gguf.ENVIRONMENT)
        if whole.is_dir():
            return whole
        where, convert = Chosen(gguf.ENVIRONMENT, "model.source", source), gguf.convert_tokenizer
        return made_once(cache / "tokenizer" / whole.name, lambda part: call(where, convert, str(path), str(part)))
    if source.startswith("s3://"):
        return _from_s3(source, cache, endpoint_url, wanted, lambda done, total: None)
    if is_local(source):
        return Path(source).expanduser().absolute()
    return _from_hub(source, revision, cache, wanted)


def check_model_folder(folder: Path, source: str) -> None:
    """Raises RunnerError naming what is missing unless the folder holds config, tokenizer and all safetensors."""
    if not folder.is_dir():
        raise RunnerError(f"model.source={source}: there is no folder {folder}", "Correct the path.")
    names = [path.name for path in folder.iterdir()]
    missing = []
    if "config.json" not in names:
        missing.append("config.json")
    if not any(fnmatch(name, pattern) for name in names for pattern in _TOKENIZERS):
        missing.append("a tokenizer (tokenizer.json, or tokenizer.model)")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            parts = set(json.loads(read_small(index))["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunnerError(
                f"model.source={source}: {index} is damaged: {error!r}", "Obtain the model again."
            ) from error
        missing += sorted(parts - set(names))
    elif not any(name.endswith(".safetensors") for name in names):
        missing.append("*.safetensors (pickled weights, .bin and .pt, are not read)")
    if missing:
        raise RunnerError(
            f"model.source={source}: {folder} lacks {', '.join(missing)}",
            "Give a folder that transformers' save_pretrained wrote, with its tokenizer.",
        )


def describe_model(folder: Path, cache: Path, meta: dict[str, Any]) -> Artifact:
    """The model folder as the artifact `model`, with the digest of every file that a model is loaded from.

    Digests are kept in the cache by path, size and time of change, so that a model is read through once.
    """
    there = [*folder.iterdir(), *folder.glob(_TEMPLATES)]
    names = sorted(path.relative_to(folder).as_posix() for path in there if path.is_file())
    names = [name for name in names if _matches(name, _WANTED + _CODE)]
    files = digests_of(folder, names, cache / "digests")
    return Artifact(name="model", uri=str(folder), sha256=digest_files(files), files=files, meta=meta)


def _matches(name: str, wanted: list[str]) -> bool:
    if fnmatch(name, _TEMPLATES) and name.count("/") == 1:
        return True
    return any(fnmatch(name, pattern) for pattern in wanted) and not any(fnmatch(name, p) for p in _UNWANTED)


def _from_package(source: str, cache: Path) -> Path:
    distribution, _, name = source.removeprefix("package://").partition("/")
    path = gguf.find_packaged_file(distribution, name)
    folder = cache / "gguf" / gguf.cache_name(distribution, path)
    return made_once(folder, lambda part: gguf.convert(path, part))


def s3_tag(source: str, endpoint_url: str | None) -> str:
    """What changes when a file of the model at an s3:// prefix does. Raises RunnerError without an answer."""
    bucket, prefix = s3.split_uri(source)
    start = len(prefix) + 1 if prefix else 0
    client = s3.connect(endpoint_url, patient=False)
    found = {info.key[start:]: [info.size_bytes, info.etag] for info in s3.list_objects(client, bucket, prefix)}
    return digest_json({name: state for name, state in found.items() if _matches(name, _WANTED + _CODE)})


def hub_tag(source: str, revision: str | None) -> str | None:
    """The commit that the id means on the hub now. Raises RunnerError when the hub does not answer."""
    if revision and _COMMIT.fullmatch(revision):
        return None  # it never means another one
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(source, revision=revision, timeout=_LOOK_S).sha
    except Exception as error:  # the client raises what the network and the hub's answers raise
        raise RunnerError(f"model.source={source}: {first_line(error)}") from error


def _from_s3(source: str, cache: Path, endpoint_url: str | None, wanted: list[str], on_bytes: OnBytes) -> Path:
    bucket, prefix = s3.split_uri(source)
    client = s3.connect(endpoint_url)
    start = len(prefix) + 1 if prefix else 0
    objects = {info.key[start:]: info for info in s3.list_objects(client, bucket, prefix)}
    objects = {name: info for name, info in sorted(objects.items()) if _matches(name, wanted)}
    if not objects:
        raise RunnerError(f"model.source={source}: there are no model files", "Give the prefix that holds config.json.")
    # The listing's tags are part of the folder's name: a model that is replaced at the same URI is downloaded again.
    tag = digest_json([source, {name: [info.size_bytes, info.etag] for name, info in objects.items()}])[:16]
    total = sum(info.size_bytes for info in objects.values())

    def download_all(part: Path) -> None:
        done = 0

        def download(name: str) -> int:
            target, key, size = part / name, objects[name].key, objects[name].size_bytes
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _arrived_before(client, bucket, key, target):
                s3.download(client, bucket, key, target)
            if target.stat().st_size != size:
                raise RunnerError(f"s3://{bucket}/{key} was replaced while it was downloaded", "Run again.")
            return size

        part.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_NUM_PARALLEL_FILES) as pool:
            for size in pool.map(download, objects):
                done += size
                on_bytes(done, total)

    return made_once(cache / "s3" / f"{Path(prefix).name or bucket}-{tag}", download_all)


def _arrived_before(client: Any, bucket: str, key: str, target: Path) -> bool:
    """Whether an attempt that was cut off has downloaded the object whole."""
    if not target.is_file():
        return False
    try:
        check_stored(s3.head(client, bucket, key), target, f"s3://{bucket}/{key}")
    except DamagedError:
        return False
    return True


def _from_hub(source: str, revision: str | None, cache: Path, wanted: list[str]) -> Path:
    from huggingface_hub import errors as hub

    shown = f"model.source={source}" + (f" at revision {revision}" if revision else "")
    try:
        folder = _snapshot(source, revision, cache, wanted)
        if damaged := [path for path in folder.rglob("*") if not _is_whole_blob(path, Digests(cache / "digests"))]:
            for path in damaged:
                print(f"{path} is damaged, and is downloaded again", file=sys.stderr)
                path.resolve().unlink()
                path.unlink(missing_ok=True)
            folder = _snapshot(source, folder.name, cache, wanted)
    except hub.GatedRepoError as error:
        raise RunnerError(
            f"{shown} is gated", "Accept its terms on the hub, and log in (`hf auth login`, or HF_TOKEN)."
        ) from error
    except (hub.RevisionNotFoundError, hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise RunnerError(
            f"{shown}: the hub has no such model, or it is private",
            "Correct model.source and model.revision, or log in (`hf auth login`, or HF_TOKEN).",
        ) from error
    except (hub.HfHubHTTPError, hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, OSError) as error:
        raise RunnerError(
            f"{shown} is not in the cache, and the model hub cannot be reached: {error}",
            "Set HF_ENDPOINT to a mirror, or give model.source a local folder, s3://... or package://...",
        ) from error
    return folder


def _snapshot(source: str, revision: str | None, cache: Path, wanted: list[str]) -> Path:
    """The folder of the model's files, and of its further templates, which lie in a folder below it."""
    from huggingface_hub import snapshot_download

    hub = cache / "hub"
    folder = Path(
        snapshot_download(source, revision=revision, cache_dir=hub, allow_patterns=wanted, ignore_patterns=_UNWANTED)
    )
    snapshot_download(source, revision=folder.name, cache_dir=hub, allow_patterns=[_TEMPLATES])
    return folder


def _is_whole_blob(path: Path, digests: Digests) -> bool:
    """Whether a file of the hub's cache has the digest that its blob is named by: SHA-256, or git's of small files."""
    blob = path.resolve()
    if not path.is_file() or blob.parent.name != "blobs":
        return True
    if _SHA256.fullmatch(blob.name):
        return digests.of(blob) == blob.name
    if not _COMMIT.fullmatch(blob.name):
        return True
    data = blob.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == blob.name
