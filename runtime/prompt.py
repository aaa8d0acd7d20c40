"""The one token path: messages become token ids, positions and prepared images, the same for every engine.

Reads the tokenizer, the chat template and the pixel rules of a checkpoint or of a bundle's shared/ folder. The
template runs in jinja2's immutable sandbox. Knows no engine.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from .families import Family, family_of
from .messages import ROLES, ImagePart, Message, TextPart
from .positions import mrope_positions
from .preprocessing import Grid, PixelRules, grid_of, resize

PROMPT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "generation_config.json",
)
"""What a folder must hold to make prompts; the last one may be missing, pixel rules where no image is taken."""


_SIZED_IMAGES = 2
"""How many images are kept at their final size; of the largest that a model takes some 40 MB each."""
# Ends of a turn in Qwen's and Llama 3's templates, where the tokenizer has them and whatever else ends a text.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>")
# What a template may call by name, as transformers gives it.
_TEMPLATE_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class PromptError(InfimedError):
    """The messages, the tokenizer or the template cannot make a prompt."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image at its final size and its place in the prompt.

    key: hash of the image before resizing; an engine has one set of pixel rules, so there equal keys are equal pixels.
    rgb: (height, width, 3), uint8, final size. start: index of its first image token. tokens: how many follow.
    """

    key: str
    rgb: NDArray[np.uint8]
    grid: Grid
    start: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as every engine takes it.

    token_ids: (tokens,), int64. positions: (3, tokens), int64. next_position: where a reply would begin.
    boundaries: indices at which engines cut the prompt (after each image, after each finished message). They follow
    from the tokens alone, so what an engine reuses from an earlier prompt is exactly what it would compute again.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    next_position: int
    images: tuple[PreparedImage, ...]
    boundaries: tuple[int, ...]


class Prompter:
    """Makes prompts for one checkpoint. pixel_rules: None for a family that takes no images.

    template: its source; template_values: what it may call by name.
    """

    def __init__(
        self,
        family: Family,
        rules: PixelRules | None,
        tokenizer_json: str,
        template: str,
        template_values: Mapping[str, Any],
        extra_end_ids: Sequence[int] = (),
    ) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # tokenizers raises plain Exception for whatever it cannot parse
            raise PromptError(f"tokenizer.json cannot be read ({error}); check the file") from None
        # A file may ask for either; transformers does neither unless it is told to, and a prompt is never cut.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.family = family
        self.pixel_rules = rules
        self._sized: OrderedDict[tuple[str, PixelRules], NDArray[np.uint8]] = OrderedDict()
        self.template = template
        self._template = _compile(template)
        self.template_values = dict(template_values)
        added = json.loads(tokenizer_json).get("added_tokens", [])
        for token in added:
            if (number := self._tokenizer.token_to_id(token["content"])) != token.get("id"):
                raise PromptError(
                    f"tokenizer.json gives {token['content']} the id {token.get('id')!r}, which another token has or "
                    f"which leaves a gap: it is read as {number}; correct the file"
                )
        self._control = tuple(token["content"] for token in added if token.get("special"))
        image_token_id = self._tokenizer.token_to_id(family.image_token) if family.image_token else -1
        if image_token_id is None:
            raise PromptError(f"tokenizer.json lacks {family.image_token}, which {family.name} needs")
        self.image_token_id: int = image_token_id
        ends = {
            self._tokenizer.token_to_id(text) for text in (*_TURN_ENDS, self.template_values.get("eos_token")) if text
        }
        self.end_ids: frozenset[int] = frozenset({i for i in ends if i is not None} | set(extra_end_ids))
        if not self.end_ids:
            raise PromptError("no end-of-turn token is known; tokenizer_config.json must name eos_token")

    @classmethod
    def open(cls, folder: Path) -> Prompter:
        """Read PROMPT_FILES from a checkpoint or a shared/ folder. Raises PromptError or UnsupportedFamily."""
        family = family_of(read_json(folder / "config.json"))
        tokenizer_config = read_json(folder / "tokenizer_config.json")
        template_file = folder / "chat_template.jinja"
        template = tokenizer_config.get("chat_template")
        if template_file.is_file():
            template = _read_text(template_file)
        if not isinstance(template, str):
            raise PromptError(f"{folder} has no chat template; chat_template.jinja must hold it")
        tokenizer_file = folder / "tokenizer.json"
        if not tokenizer_file.is_file():
            raise PromptError(f"{tokenizer_file} is missing; infimed reads tokenizers in that form only")
        ends: list[int] = []
        if (folder / "generation_config.json").is_file():
            named = read_json(folder / "generation_config.json").get("eos_token_id")
            ends = named if isinstance(named, list) else [] if named is None else [named]
            if wrong := [value for value in ends if not isinstance(value, int) or isinstance(value, bool)]:
                raise PromptError(f"generation_config.json: eos_token_id holds {wrong[0]!r}; numbers are needed")
        named_tokens = {f"{name}_token": tokenizer_config.get(f"{name}_token") for name in _TEMPLATE_TOKENS}
        # One that is not named stays undefined, which a template writes as nothing.
        values = {key: text for key, value in named_tokens.items() if (text := _token_text(value)) is not None}
        return cls(
            family=family,
            rules=open_rules(folder, family),
            tokenizer_json=_read_text(tokenizer_file),
            template=template,
            template_values=values,
            extra_end_ids=ends,
        )

    @property
    def rules(self) -> PixelRules:
        """How images are made for the model. Raises PromptError for a family that takes none."""
        if self.pixel_rules is None:
            raise PromptError(f"{self.family.name} models take no images; ask in text alone")
        return self.pixel_rules

    @rules.setter
    def rules(self, rules: PixelRules) -> None:
        self.pixel_rules = rules

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The pixel rules as a manifest states them; empty for a family that takes no images."""
        return self.pixel_rules.to_json() if self.pixel_rules else {}

    @property
    def vocabulary(self) -> int:
        """How many tokens the tokenizer knows; a model's logits may be wider."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def highest_id(self) -> int:
        """The largest id of a token; -1 of an empty vocabulary."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without anything added; control tokens in it are read as such."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens left out."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_text(self, token_id: int) -> str:
        """Return how the vocabulary writes one token, control tokens included."""
        return str(self._tokenizer.decode([token_id], skip_special_tokens=False))

    def check_text(self, text: str) -> None:
        """Raise PromptError for a text that holds a control token or what UTF-8 cannot hold."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            wrong = f"U+{ord(text[error.start]):04X}"
            raise PromptError(f"the text holds {wrong}, which is no character; give it in UTF-8") from None
        for control in self._control:
            if control in text:
                raise PromptError(f"the text holds the control token {control}; remove it")

    def render(self, messages: Sequence[Message], reply_follows: bool = True) -> str:
        """Return the text of the chat template, one image token per image. Raises PromptError."""
        turns = [self._turn(message) for message in messages]
        try:
            return str(
                self._template.render(
                    messages=turns,
                    add_generation_prompt=reply_follows,
                    tools=None,
                    documents=None,
                    **self.template_values,
                )
            )
        except InfimedError:
            raise
        except Exception as error:  # a template is data: whatever it raises is about the template or the messages
            raise PromptError(f"the chat template refuses the messages ({error})") from None

    def prompt(self, messages: Sequence[Message], reply_follows: bool = True) -> Prompt:
        """Return the prompt of a conversation. reply_follows: open the assistant's turn at the end."""
        text = self.render(messages, reply_follows)
        if self.family.image_token is None:
            return self._without_images(text)
        pieces = text.split(self.family.image_token)
        pictures = [part for message in messages for part in message.parts if isinstance(part, ImagePart)]
        if len(pieces) != len(pictures) + 1:
            raise PromptError(f"the chat template placed {len(pieces) - 1} of {len(pictures)} images")
        prepared = [(picture, self._resized(picture)) for picture in pictures]
        text = pieces[0]
        for (_, rgb), piece in zip(prepared, pieces[1:], strict=True):
            text += self.family.image_token * grid_of(rgb, self.rules).tokens(self.rules.merge_size) + piece
        token_ids = np.array(self.encode(text), dtype=np.int64)
        images: list[PreparedImage] = []
        at = 0
        for picture, rgb in prepared:
            grid = grid_of(rgb, self.rules)
            start = at + int(np.argmax(token_ids[at:] == self.image_token_id))
            at = start + grid.tokens(self.rules.merge_size)
            images.append(PreparedImage(picture.key, rgb, grid, start, at - start))
        positions, next_position = mrope_positions(
            token_ids, [image.grid for image in images], self.image_token_id, self.rules.merge_size
        )
        cuts = {image.start + image.tokens for image in images} | self._ends(token_ids)
        return Prompt(token_ids, positions, next_position, tuple(images), tuple(sorted(cuts - {0, len(token_ids)})))

    def _resized(self, picture: ImagePart) -> NDArray[np.uint8]:
        """Return a picture at its final size; the latest ones are kept, for a picture is seldom asked about once."""
        key = picture.key, self.rules
        if key not in self._sized:
            self._sized[key] = resize(picture.rgb, self.rules)
        self._sized.move_to_end(key)
        while len(self._sized) > _SIZED_IMAGES:
            self._sized.popitem(last=False)
        return self._sized[key]

    def _without_images(self, text: str) -> Prompt:
        """Return the prompt of a rendered text for a family that takes no images: every position counts tokens."""
        token_ids = np.array(self.encode(text), dtype=np.int64)
        count = len(token_ids)
        positions = np.tile(np.arange(count, dtype=np.int64), (3, 1))
        return Prompt(token_ids, positions, count, (), tuple(sorted(self._ends(token_ids) - {0, count})))

    def _ends(self, token_ids: NDArray[np.int64]) -> set[int]:
        """Return where each finished message ends."""
        return {int(index) + 1 for index in np.flatnonzero(np.isin(token_ids, list(self.end_ids)))}

    def _turn(self, message: Message) -> dict[str, Any]:
        """Return a message as templates take it."""
        if message.role not in ROLES:
            raise PromptError(f"a message is from {message.role!r}; one of {', '.join(ROLES)} is needed")
        # A template writes adjacent texts one after the other: no part holds what they spell together.
        for is_image, run in groupby(message.parts, lambda part: isinstance(part, ImagePart)):
            if not is_image:
                self.check_text("".join(part.text for part in run if isinstance(part, TextPart)))
        if self.family.image_token is None:  # templates of such families join a message's content to strings
            if any(isinstance(part, ImagePart) for part in message.parts):
                raise PromptError(f"{self.family.name} models take no images; ask in text alone")
            text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
            return {"role": message.role, "content": text}
        content = [
            {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
            for part in message.parts
        ]
        return {"role": message.role, "content": content}


def open_rules(folder: Path, family: Family) -> PixelRules | None:
    """Return the pixel rules of a checkpoint or shared/ folder; None for a family that takes no images."""
    if family.image_token is None:
        return None
    return PixelRules.from_json(read_json(folder / "preprocessor_config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises PromptError naming the file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PromptError(f"{path} cannot be read ({error}); a checkpoint needs it") from None
    if not isinstance(value, dict):
        raise PromptError(f"{path} holds {type(value).__name__}; a JSON object is needed")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise PromptError(f"{path} cannot be read ({error}); a checkpoint needs it") from None


def _token_text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise PromptError(f"tokenizer_config.json names {text!r} as a token; a text is needed")
    return text


def _compile(template: str) -> Any:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise PromptError(f"the chat template refuses the messages: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise PromptError(f"the chat template cannot be compiled ({error})") from None
