"""YAML as exported files have it: keys in the order given, long text in blocks, a comment on top."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def yaml_text(value: Any) -> str:
    """The value as YAML."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110)
    return text


def document(comment: str, value: Any) -> str:
    """The value as a YAML file, with the comment's lines on top."""
    return "".join(f"# {line}\n" for line in comment.splitlines()) + yaml_text(value)
