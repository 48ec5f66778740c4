"""Loaded by every Python process of a traced run, by PYTHONPATH: notes the files that it reads, and the recipe's keys.

Each process writes lines of JSON to a file of its own in TRACE_READS: [time, "file", path], or [time, "key", section,
name] where a module of `stages` reads the attribute of a section of the recipe. Files below TRACE_LEAVE_OUT are not
noted (a folder each, separated by colons).
"""

import importlib.util
import json
import os
import sys
import time

_FOLDER = os.environ.get("TRACE_READS")
_LEFT_OUT = tuple(filter(None, os.environ.get("TRACE_LEAVE_OUT", "").split(":")))
_SCHEMA = "runner.recipe.schema"


def _note(*values: object) -> None:
    os.write(_FILE, (json.dumps([time.time(), *values]) + "\n").encode())


def _opened(event: str, args: tuple) -> None:
    if event != "open" or not isinstance(args[0], str | bytes | os.PathLike):
        return
    path, flags = os.fsdecode(args[0]), args[2]
    if flags & os.O_ACCMODE == os.O_RDONLY and not path.startswith(_LEFT_OUT):
        _note("file", os.path.abspath(path))  # noqa: PTH100 (a link stays a link)


def _trace_keys(schema: object) -> None:
    """Have every section note which of its fields is read from a module of `stages`, at most once a second."""
    noted: set[tuple[str, str, int]] = set()

    def read(section: object, name: str) -> object:
        kind = type(section)
        if not name.startswith("_") and name in kind.__pydantic_fields__:
            at = (kind.__name__, name, int(time.time()))
            if at not in noted and "/stages/" in sys._getframe(1).f_code.co_filename:
                noted.add(at)
                _note("key", *at[:2])
        return object.__getattribute__(section, name)

    schema.Section.__getattribute__ = read


class _Finder:
    """Traces the schema once it is imported."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name != _SCHEMA:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def and_trace(module: object) -> None:
            execute(module)
            _trace_keys(module)

        spec.loader.exec_module = and_trace
        return spec


if _FOLDER:
    _FILE = os.open(f"{_FOLDER}/{os.getpid()}-{time.time_ns()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.meta_path.insert(0, _Finder())
    sys.addaudithook(_opened)
