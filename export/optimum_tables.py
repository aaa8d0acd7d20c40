"""What optimum's tables say of a checkpoint: its task, and the numbers of its text model under one set of names.

Tasks are so named as every tool of that house names them. Knows no graph, no weight and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import MissingExtra
from ..runtime.families import family_of


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task of a config.json's architecture: "text-generation", or "image-text-to-text" with images.

    Raises MissingExtra, UnsupportedFamily.
    """
    architecture = family_of(config).architecture
    try:
        from optimum.exporters.tasks import TasksManager
    except ModuleNotFoundError as error:
        raise MissingExtra("export", error.name or "optimum") from None
    import transformers

    # The class, not the folder: of a folder the table asks the model hub, and refuses a local one.
    task: str = TasksManager.infer_task_from_model(getattr(transformers, architecture))
    return task


def text_numbers(config: Any) -> Any:
    """Return the text model of a transformers config as optimum's NormalizedConfig: num_layers, hidden_size and so on.

    Reading what config.json does not state raises AttributeError with its name. Raises MissingExtra.
    """
    try:
        from optimum.utils import NormalizedConfigManager, NormalizedTextConfigWithGQA
    except ModuleNotFoundError as error:
        raise MissingExtra("export", error.name or "optimum") from None
    # A text model within another names its numbers as Llama does; optimum's table has no row for Qwen2.5-VL's.
    own = {"qwen2_5_vl_text": NormalizedTextConfigWithGQA}
    text = config.get_text_config()
    kind = own.get(text.model_type) or NormalizedConfigManager.get_normalized_config_class(text.model_type)
    return kind(text)
