"""Which API keys are good: where they are read, that changes of the file count at once, and that nothing says one."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from runner.errors import RunnerError
from stages.sections.serve import ApiKeys
from stages.serve.guard.keys import KeyRing, digest, known_keys, own_key, parse_keys, ring_settings

OLD, NEW, OTHER = "old-key-0123456789", "new-key-0123456789", "another-key-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    made.write_text(f"# team a\n{OLD}\n\n  {OTHER}   # team b\n")
    return made


@pytest.fixture
def ring(file: Path) -> KeyRing:
    return KeyRing(file, [], logging.getLogger("ring"))


def test_a_file_has_a_key_a_line_and_comments(file: Path) -> None:
    assert parse_keys(file.read_text()) == ([OLD, OTHER], [])


@pytest.mark.parametrize("line", ["short", "two words-0123456789abcdef", "ключ-0123456789abcdef", "a" * 513])
def test_a_line_without_a_key_is_known_by_its_number(line: str) -> None:
    assert parse_keys(f"{OLD}\r\n{line}\n") == ([OLD], [2])


def test_keys_of_file_and_environment_are_good_together(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", f"{NEW},\n{OTHER}")
    api_keys = ApiKeys(file=str(file), env="KEYS")
    assert known_keys(api_keys) == [OLD, OTHER, NEW, OTHER]
    assert own_key(api_keys) == OLD
    assert own_key(None) is None


def test_the_endpoint_is_given_a_path_and_digests_and_no_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", NEW)
    monkeypatch.chdir(file.parent)
    assert ring_settings(ApiKeys(file="keys", env="KEYS")) == {"file": str(file), "digests": [digest(NEW)]}
    assert ring_settings(None) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "it holds none"),
        (b"# nothing\n", "it holds none"),
        (f"{OLD}\nshort-secret\n".encode(), "line 2"),
        (b"\xff\xfe not text", "not UTF-8"),
        (b"x" * (1 << 20) + b"yy", "larger than 1 MiB"),
    ],
)
def test_a_file_without_keys_is_refused_and_not_quoted(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunnerError, match=reason) as error:
        known_keys(ApiKeys(file=str(path)))
    assert "serve.api_keys.file=" in error.value.message
    assert "short-secret" not in error.value.message


@pytest.mark.parametrize("value", [None, "", "short-secret", f"{OLD},short-secret"])
def test_an_environment_without_keys_is_refused_and_not_quoted(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYS", raising=False)
    if value is not None:
        monkeypatch.setenv("KEYS", value)
    with pytest.raises(RunnerError, match=r"serve\.api_keys\.env=KEYS") as error:
        known_keys(ApiKeys(env="KEYS"))
    assert "short-secret" not in error.value.message


def test_only_whole_keys_are_good(ring: KeyRing) -> None:
    assert ring.owner(OLD) == digest(OLD)
    assert ring.owner(OTHER) == digest(OTHER)
    for wrong in ("", OLD[:-1], OLD + "x", OLD.upper(), "# team a", digest(OLD), "\udcff"):
        assert ring.owner(wrong) is None


def test_every_key_is_compared_even_after_one_has_matched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = KeyRing.owner.__globals__["hmac"].compare_digest
    monkeypatch.setattr("stages.serve.guard.keys.hmac.compare_digest", lambda a, b: compared.append(a) or real(a, b))
    assert KeyRing(file, [digest(NEW)], logging.getLogger("ring")).owner(NEW) == digest(NEW)
    assert len(compared) == 3


def test_a_rotated_file_counts_at_once(ring: KeyRing, file: Path) -> None:
    assert ring.owner(OLD)
    for key, gone in ((NEW, OLD), (OLD, NEW), (NEW, OLD)):  # of the same length, faster than the clock ticks
        file.write_text(f"{key}\n")
        assert ring.owner(key)
        assert ring.owner(gone) is None


def test_a_file_that_has_not_changed_for_a_while_is_not_read_again(
    ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr("stages.serve.guard.keys.time.time_ns", lambda: later)
    assert ring.owner(OLD)
    monkeypatch.setattr("stages.serve.guard.keys.Path.open", None)
    assert ring.owner(OLD)


@pytest.mark.parametrize("spoil", ["remove", "empty", "folder", "binary", "link to nothing"])
def test_without_a_readable_file_no_key_of_it_is_good(
    spoil: str, ring: KeyRing, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ring.owner(OLD)
    file.unlink()
    if spoil == "empty":
        file.touch()
    elif spoil == "folder":
        file.mkdir()
    elif spoil == "binary":
        file.write_bytes(b"\xff" + OLD.encode())
    elif spoil == "link to nothing":
        file.symlink_to("nowhere")
    for _ in range(3):
        assert ring.owner(OLD) is None
    lines = [record.getMessage() for record in caplog.records]
    assert any("holds no key" in text for text in lines)
    assert len(lines) <= 3  # once, and not for each request
    assert not any(key in text for key in (OLD, OTHER) for text in lines)


def test_a_file_that_is_there_again_is_read(ring: KeyRing, file: Path) -> None:
    file.rename(file.with_suffix(".away"))
    assert ring.owner(OLD) is None
    file.with_suffix(".away").rename(file)
    assert ring.owner(OLD)


def test_keys_of_the_environment_stay_good_when_the_file_is_gone(file: Path) -> None:
    ring = KeyRing(file, [digest(NEW)], logging.getLogger("ring"))
    file.unlink()
    assert ring.owner(NEW)
    assert ring.owner(OLD) is None
