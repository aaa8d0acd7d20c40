"""`infimed run`: one answer of one level, or a conversation with it. Knows how to ask and how to tell, no model."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import InfimedError
from ..evaluation.prompting import with_options
from ..runtime.backend import MAX_GPU_LAYERS, MAX_THREADS
from ..runtime.bundle import Bundle
from ..runtime.engine import Engine, Sampling, check_choice
from ..runtime.images import open_image
from ..runtime.messages import ImagePart, Message, Part, assistant, user
from ..runtime.open_engine import CONTEXT_TOKENS, computed_as, open_engine
from .app import say_error

MAX_CONTEXT_TOKENS = 1 << 20
"""The most that may be asked for; a model's own limit is checked when it opens."""


def run(
    bundle: Annotated[Path, typer.Argument(help="The folder that `infimed export` wrote.", show_default=False)],
    question: Annotated[
        str | None, typer.Argument(help="What to ask; without it, questions are read line by line.", show_default=False)
    ] = None,
    level: Annotated[str, typer.Option("--level", help="The level to run, such as gguf-q4_k_m.")] = "",
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="An image the question is about; again for more, in order.")
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option("--choice", help="A possible answer; two or more make it a choice by likelihood."),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest reply, in tokens.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Share of probability drawn from.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same reply, on one engine.")] = 0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="A text that ends the reply.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=MAX_THREADS, help="Processor threads; default all.")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            min=64,
            max=MAX_CONTEXT_TOKENS,
            help=f"Longest conversation, tokens; default {CONTEXT_TOKENS}, or the model's limit where that is lower.",
        ),
    ] = None,
    gpu_layers: Annotated[
        int, typer.Option("--gpu-layers", min=0, max=MAX_GPU_LAYERS, help="Layers on the GPU; 0 is none.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that is known of the answer.")] = False,
) -> None:
    """Ask a level of a bundle about images.

    The bundle is verified first. With --choice the likeliest option is printed with its confidence: the softmax over
    the options' log-likelihoods per token. Not a medical device: a person decides.
    """
    if choice and question is None:
        raise InfimedError("--choice needs a question; write it after the bundle")
    if question is not None and not question.strip():
        raise InfimedError("the question is empty; write it after the bundle, or leave it out for a conversation")
    if choice and question is not None:
        check_choice(question, choice)
    sampling = Sampling(max_tokens, temperature, top_p, seed, tuple(stop or ()))
    opened = Bundle.open(bundle)
    if not level:
        held = [entry.name for entry in opened.manifest.levels]
        if len(held) > 1:
            raise InfimedError(f"--level is needed: the bundle holds {', '.join(held)}")
        level = held[0]
    opened.entry(level)
    parts: list[Part] = [ImagePart(open_image(path)) for path in image or []]
    engine = open_engine(opened, level, threads=threads, gpu_layers=gpu_layers, context_tokens=context)
    try:
        if question is None:
            _converse(engine, parts, sampling, as_json)
        elif choice:
            yes_no = {option.lower() for option in choice} == {"yes", "no"}
            asked = question if yes_no else with_options(question, choice)
            _choose(engine, [user(*parts, asked)], choice, as_json)
        else:
            _reply(engine, [user(*parts, question)], sampling, as_json)
    finally:
        engine.close()


def named(level: str) -> str:
    """Return a level's name for a person, with what computes it where that is not what the name says."""
    computed = computed_as(level)
    return f"{level}: {computed}" if computed else level


def _choose(engine: Engine, messages: list[Message], choices: list[str], as_json: bool) -> None:
    scores = engine.score(messages, choices)
    confidence = scores.probabilities()
    if as_json:
        found: dict[str, Any] = {
            "level": engine.level,
            "computes": computed_as(engine.level) or "engine",
            "answer": scores.choice(),
            "confidence": float(confidence.max()),
            "options": [
                {**asdict(option), "probability": float(share)}
                for option, share in zip(scores.options, confidence, strict=True)
            ],
            "prompt_tokens": scores.prompt_tokens,
        }
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{scores.choice()}  (confidence {confidence.max():.1%}, {named(engine.level)})")
    for option, share in sorted(zip(scores.options, confidence, strict=True), key=lambda pair: -pair[1]):
        typer.echo(f"  {share:6.1%}  {option.option}")


def _reply(engine: Engine, messages: list[Message], sampling: Sampling, as_json: bool) -> str:
    told = None if as_json else _tell
    completion = engine.generate(messages, sampling, on_text=told)
    if as_json:
        computes = computed_as(engine.level) or "engine"
        found = {"level": engine.level, "computes": computes, **asdict(completion)}
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        typer.echo("")
    return completion.text


def _tell(text: str) -> None:
    typer.echo(text, nl=False)
    sys.stdout.flush()


def _converse(engine: Engine, parts: list[Part], sampling: Sampling, as_json: bool) -> None:
    """Read questions from standard input until it ends; the images belong to the first one.

    On a terminal a question that cannot be asked is told and left out; elsewhere it ends the conversation as an error.
    """
    messages: list[Message] = []
    asked_by_a_person = sys.stdin.isatty()
    if asked_by_a_person:
        typer.echo("Ask line by line; Ctrl-D ends the conversation.", err=True)
    while True:
        if asked_by_a_person:
            typer.echo("> ", nl=False, err=True)
        line = _read_line()
        if not line:
            return
        if not line.strip():
            continue
        asked = user(*(parts if not messages else ()), line.strip())
        try:
            reply = _reply(engine, [*messages, asked], sampling, as_json)
        except InfimedError as error:
            if not asked_by_a_person:
                raise
            say_error(str(error))
            continue
        messages += [asked, assistant(reply)]


def _read_line() -> str:
    try:
        return sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise InfimedError(f"standard input is not text in UTF-8 ({error.reason}); convert it first") from None
