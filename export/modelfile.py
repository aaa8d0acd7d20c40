"""Writes a Modelfile, by which Ollama takes a GGUF level: its files, its template, where a reply ends.

Ollama's templates are Go's, and cannot be made from the checkpoint's own: those known here are used only where the
checkpoint's template renders exactly what they do. Knows Ollama's format (its docs/modelfile.md), no weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..runtime.messages import Message, TextPart, user
from ..runtime.prompt import Prompter, PromptError

MODELFILE = "Modelfile"
_S, _Q, _A = "You are SYSTEM.", "First QUESTION?", "The ANSWER."


@dataclass(frozen=True)
class _Dialect:
    """A way of writing turns. turn: a whole one; opened: the assistant's, begun; go: the same for Ollama."""

    turn: Callable[[str, str], str]
    opened: str
    go: str


_CHATML = _Dialect(
    turn=lambda role, text: f"<|im_start|>{role}\n{text}<|im_end|>\n",
    opened="<|im_start|>assistant\n",
    go="""{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
""",
)
_LLAMA3 = _Dialect(
    turn=lambda role, text: f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>",
    opened="<|start_header_id|>assistant<|end_header_id|>\n\n",
    go="""{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>

""",
)


def modelfile(prompter: Prompter, model: str, tower: str | None) -> str:
    """Return the Modelfile of a level. model, tower: its files, relative to where the Modelfile lies."""
    lines = [f"FROM {model}", *([f"FROM {tower}"] if tower else [])]
    dialect, system = _dialect(prompter)
    if dialect is None:
        lines.append("# The chat template is in the model file; no Ollama template is known to render the same.")
    else:
        lines.append(f'TEMPLATE """{dialect.go}"""')
        lines += [f'SYSTEM """{system}"""'] if system else []
    lines += [f'PARAMETER stop "{prompter.token_text(token)}"' for token in sorted(prompter.end_ids)]
    lines.append("PARAMETER temperature 0")
    return "\n".join(lines) + "\n"


def _dialect(prompter: Prompter) -> tuple[_Dialect | None, str]:
    """Return the dialect that the checkpoint's template writes, and the system prompt it adds to a conversation."""
    talk = [Message("system", (TextPart(_S),)), user(_Q), Message("assistant", (TextPart(_A),)), user(_Q)]
    try:
        whole, bare = prompter.render(talk), prompter.render(talk[1:])
    except PromptError:
        return None, ""
    for dialect in (_CHATML, _LLAMA3):
        turns = [dialect.turn(role, text) for role, text in (("user", _Q), ("assistant", _A), ("user", _Q))]
        rest = "".join(turns) + dialect.opened
        start, _, _ = dialect.turn("system", "\0").partition("\0")
        end = dialect.turn("system", "\0").partition("\0")[2]
        # A token that begins every text is added by Ollama from the model file.
        if not whole.endswith(dialect.turn("system", _S) + rest) or not bare.endswith(rest):
            continue
        before = bare.removesuffix(rest)
        system = before.partition(start)[2].removesuffix(end) if start in before and before.endswith(end) else ""
        if '"""' not in system and len(whole) - len(dialect.turn("system", _S) + rest) <= len("<|begin_of_text|>"):
            return dialect, system
    return None, ""
