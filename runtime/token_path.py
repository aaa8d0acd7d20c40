"""Names the way from messages to tokens and pixels by one sha256: equal for two models that are given the same inputs.

Only for such two do log-probabilities at the same token speak of the same thing. Knows no engine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .files import canonical_json
from .prompt import Prompter, read_json

_NOT_USED = ("truncation", "padding")  # a prompt is never cut or filled, whatever the file asks for


def token_path_sha256(folder: Path, prompter: Prompter) -> str:
    """Return the sha256 over tokenizer, chat template, ends of a turn and pixel rules.

    folder: a checkpoint or a bundle's shared/ folder, whose tokenizer.json counts by what it says, not by its bytes.
    prompter: as its engine uses it (an adapter brings pixel rules of its own). Raises PromptError.
    """
    tokenizer = {key: value for key, value in read_json(folder / "tokenizer.json").items() if key not in _NOT_USED}
    path = {
        "tokenizer": tokenizer,
        "template": prompter.template,
        "values": prompter.template_values,
        "ends": sorted(prompter.end_ids),
        "family": prompter.family.name,
        "pixels": prompter.preprocessing,
    }
    return hashlib.sha256(canonical_json(path)).hexdigest()
