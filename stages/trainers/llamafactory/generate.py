"""Writes the tables of LLaMA-Factory's arguments from the installed one: `make known-keys`. Nothing imports it."""

from __future__ import annotations

import os

from runner.recipe.arguments.generate import Section, Tables, dataclass_table, main, version_of
from stages.trainers.llamafactory.arguments import torchaudio_stand_in
from stages.trainers.llamafactory.mappings import LLAMAFACTORY


def llamafactory_tables() -> Tables:
    """`arguments`: all that training takes. `templates`: names."""
    os.environ.pop("USE_MCA", None)
    with torchaudio_stand_in():
        from llamafactory import hparams
        from llamafactory.data.template import TEMPLATES
    arguments: Section = {}
    for group in ("Model", "Data", "Training", "Finetuning", "Generating"):
        arguments |= dataclass_table(getattr(hparams, f"{group}Arguments"), closed_enums=True)
    return {
        "versions": {"llamafactory": version_of("llamafactory"), "transformers": version_of("transformers")},
        "arguments": arguments,
        "templates": sorted(TEMPLATES),
    }


if __name__ == "__main__":
    main(LLAMAFACTORY, llamafactory_tables)
