"""The entry of `infimed`: a table of verbs, each imported only when it is called, and what an error looks like.

Knows no job: a verb's file parses, calls a lower room and prints.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from .. import InfimedError, __version__
from ..runtime.files import disk_trouble
from .printable import printable

DONE, REFUSED, WRONG_USE, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True)
class Verb:
    """One word after `infimed`. module: the file of cli/ that holds it; kind: a Typer `app`, or one function."""

    name: str
    module: str
    kind: Literal["app", "function"]
    help: str


# The order is the order of the chain. `help` stands here so that `infimed --help` imports none of the files.
VERBS: tuple[Verb, ...] = (
    Verb("demo", "demo", "function", "Show the whole chain on the embedded model: no download, no GPU."),
    Verb("data", "data", "app", "Make, import, curate and look at datasets."),
    Verb("train", "train", "app", "Fine-tune an adapter by a recipe, and merge it into a checkpoint."),
    Verb("export", "export", "function", "Turn a checkpoint into a bundle of quantised levels."),
    Verb("build", "build", "function", "Build a TensorRT level's engines where they will run."),
    Verb("verify", "verify", "function", "Check every file of a bundle against its manifest."),
    Verb("run", "run", "function", "Ask a level of a bundle one question about an image."),
    Verb("evaluate", "evaluate", "function", "Predict a dataset with the levels of a bundle."),
    Verb("judge", "judge", "function", "Ask a model of yours about the reasoning in runs; optional."),
    Verb("drift", "drift", "function", "Judge what quantisation did, or plan beforehand what can be judged."),
    Verb("devices", "devices", "app", "Look at the devices that can be planned for."),
    Verb("plan", "devices", "function", "Say what fits on a device, how fast, and the best level that does."),
)


@dataclass
class Session:
    """What the options before the verb said."""

    debug: bool = False


def load(verb: Verb) -> Any:
    """Import a verb's file and return its command."""
    module = importlib.import_module(f"{__package__}.{verb.module}")
    if verb.kind == "app":
        return typer.main.get_group(module.app)
    single = typer.Typer(add_completion=False)
    single.command(verb.name)(getattr(module, verb.name))
    return typer.main.get_command(single)


class LazyGroup(TyperGroup):
    """Lists the verbs from the table, and imports one only to run it or to print its own help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for verb in VERBS:
            self.add_command(TyperCommand(verb.name, help=verb.help), verb.name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the real command in place of the stub that the table gave."""
        name, stub, rest = super().resolve_command(ctx, args)
        verb = next((verb for verb in VERBS if verb.name == name), None)
        return name, load(verb) if verb else stub, rest


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"infimed {__version__}")
        raise typer.Exit()


@app.callback()
def infimed(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Take a medical vision-language model to an edge device and prove what quantisation did to it.

    Exit codes: 0 done, 1 a check said no, 2 wrong use, 3 internal error.
    """
    context.ensure_object(Session).debug = debug


def say_error(text: str, label: str = "error") -> None:
    """Write one line on stderr: its label in red where a terminal shows colour."""
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    start, end = ("\x1b[1;31m", "\x1b[0m") if colour else ("", "")
    sys.stderr.write(f"{start}{label}:{end} {printable(' '.join(text.split()))}\n")
    sys.stderr.flush()


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing that goes wrong leaves as a trace."""
    session = Session()
    try:
        code = typer.main.get_command(app).main(list(arguments), "infimed", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except InfimedError as error:
        _show_trace(error, session)
        say_error(str(error))
        return error.exit_code
    except TyperException as error:
        return _say_wrong_use(error)
    except (KeyboardInterrupt, Abort):
        say_error("stopped by the user", "infimed")
        return INTERRUPTED
    except SystemExit as error:
        # Typer leaves with 1 where the reader of our output (head, a pager) has gone: what it wanted was done.
        gone = isinstance(error.__context__, OSError) and error.__context__.errno == errno.EPIPE
        return DONE if gone else int(error.code or DONE)
    except OSError as error:
        return _say_os_error(error, session)
    except MemoryError as error:
        _show_trace(error, session)
        say_error("this machine has too little memory for it; `infimed plan` says which levels fit")
        return WRONG_USE
    except Exception as error:
        return _say_internal(error, session)


def _say_wrong_use(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return WRONG_USE
    place = context.command_path if context else "infimed"
    say_error(f"{error.format_message().rstrip('.')} (see `{place} --help`)")
    return WRONG_USE


def _say_os_error(error: OSError, session: Session) -> int:
    if error.errno == errno.EPIPE:
        # Met while the last output was flushed; the interpreter would flush once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    if trouble := disk_trouble(error):
        _show_trace(error, session)
        what, remedy = trouble
        place = f" for {error.filename}" if error.filename else ""
        say_error(f"{what}{place}; {remedy} and give the same command again")
        return WRONG_USE
    if error.filename is None:
        return _say_internal(error, session)
    _show_trace(error, session)
    say_error(f"{error.filename}: {error.strerror}")
    return WRONG_USE


def _show_trace(error: BaseException, session: Session) -> None:
    """With --debug, show where an error came from; its line and its exit code stay what they are without."""
    if session.debug:
        sys.stderr.write("".join(traceback.format_exception(error)))


def _say_internal(error: Exception, session: Session) -> int:
    _show_trace(error, session)
    # Only the kind and the place are told: an exception's text may hold what a patient's file says.
    frames = traceback.extract_tb(error.__traceback__)
    house = Path(__file__).resolve().parent.parent
    frame = next((frame for frame in reversed(frames) if house in Path(frame.filename).parents), frames[-1])
    place = f"{Path(frame.filename).parent.name}/{Path(frame.filename).name} line {frame.lineno}"
    say_error(f"{type(error).__name__} in {place}; `infimed --debug ...` shows the whole trace", "internal error")
    return INTERNAL


def main() -> None:
    """Run the command line of this process. What of its text is not UTF-8 is refused or escaped, never a trace."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # None where the process was started with it closed
            stream.reconfigure(errors=errors)
    sys.exit(run(sys.argv[1:]))
