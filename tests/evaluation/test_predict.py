"""Predicting a dataset with a real, tiny, random model: order, resuming after SIGKILL, and what each row holds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infimed.evaluation.dataset import Dataset, image_ref, write_dataset
from infimed.evaluation.example import Example, TextRef
from infimed.evaluation.predict import Asking, EvaluateError, ask, by_image, predict
from infimed.evaluation.prediction import PredictionError, Subject, read_run, unfinished_runs
from infimed.runtime.engine import OptionScore, Scores
from infimed.runtime.events import Event

SUBJECT = Subject("checkpoint", "checkpoint", "0" * 64, 1)
QUESTIONS = (
    ("Is there a lesion?", "yesno", ("yes", "no"), "no", "finding"),
    ("Which side is the lesion on?", "choice", ("left", "right", "both"), "left", "laterality"),
    ("What does the image show?", "open", (), "a round opacity", "open"),
)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (56 + 14 * (seed % 3), 70, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def make_dataset(folder: Path, images: int) -> Dataset:
    """Write a dataset whose rows go question by question, so that an image's questions lie far apart."""
    data = {image_ref(picture(seed)).path: picture(seed) for seed in range(images)}
    rows = [
        Example(
            id=f"{index}-{seed}",
            content=(image_ref(picture(seed)), TextRef(text)),
            answer=answer,
            options=options,
            answer_type=kind,
            modality="xray",
            task=task,
            source="made",
            license="CC0-1.0",
            group=f"patient-{seed}",
            role="test",
        )
        for index, (text, kind, options, answer, task) in enumerate(QUESTIONS)
        for seed in range(images)
    ]
    rows.append(replace(rows[0], id="train", role="train", group="patient-other"))
    return write_dataset(folder, rows, data, name="made")


def test_questions_of_one_image_stand_together_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    ordered = by_image(make_dataset(tmp_path / "set", 3).in_role("test"))
    assert [row.id for row in ordered] == ["0-0", "1-0", "2-0", "0-1", "1-1", "2-1", "0-2", "1-2", "2-2"]


def test_a_role_without_examples_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", 1)
    with pytest.raises(EvaluateError, match="no example in the role 'search'"):
        predict(lambda: pytest.fail("opened"), dataset, tmp_path / "runs", "x", subject=SUBJECT, role="search")


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
def test_a_level_whose_numbers_overflow_is_named_with_the_example_and_the_remedy(tmp_path: Path, value: float) -> None:
    class Broken:
        level = "gguf-q2_k"

        def score(self, messages, options):  # type: ignore[no-untyped-def]
            scores = [OptionScore(option, value if option == "no" else -1.0, 1) for option in options]
            return Scores(tuple(scores), 1, 0)

    dataset = make_dataset(tmp_path / "set", 1)
    with pytest.raises(EvaluateError, match=r"gguf-q2_k gives the option 'no' of example '0-0' .*infimed verify"):
        predict(Broken(), dataset, tmp_path / "runs", "gguf-q2_k", subject=SUBJECT)  # type: ignore[arg-type]
    assert unfinished_runs(tmp_path / "runs") == {"gguf-q2_k": 0}


torch = pytest.importorskip("torch")
from infimed.training.reference import open_reference  # noqa: E402


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("set") / "made", 8)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, dataset: Dataset) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    engine = open_reference(checkpoint, threads=1)
    calls = []
    real = engine.backend.encode_image  # type: ignore[attr-defined]
    engine.backend.encode_image = lambda image: (calls.append(image.key), real(image))[1]  # type: ignore[attr-defined]
    events: list[Event] = []
    predict(engine, dataset, out, "checkpoint", subject=SUBJECT, on_event=events.append)
    assert len(calls) == len(set(calls)) == 8  # an image is encoded once for all its questions
    assert [event.done for event in events] == list(range(25)) and events[-1].total == 24
    return out


def test_rows_hold_what_the_engine_says_of_each_question(checkpoint: Path, dataset: Dataset, unbroken: Path) -> None:
    run = read_run(unbroken, "checkpoint")
    assert run.meta.identity.dataset_sha256 == dataset.sha256 and run.meta.items == 24
    examples = {example.id: example for example in dataset.examples}
    for row in run.predictions:
        example = examples[row.example_id]
        assert (row.group, row.task, row.wording, row.answer) == (
            example.group, example.task, example.question, example.answer,
        )  # fmt: skip
        if row.options:
            per_token = np.array(row.option_logprobs_nats) / row.option_tokens
            shares = np.exp(per_token - per_token.max())
            assert row.probabilities == pytest.approx(shares / shares.sum(), abs=1e-8)
            assert row.choice == row.options[int(per_token.argmax())]
            assert row.correct == (row.choice == row.answer) == bool(row.score)
            assert row.generated is None
        else:
            assert row.choice is None and row.generated is not None and row.probabilities == ()


def test_a_process_killed_midway_resumes_to_the_bytes_of_an_unbroken_run(
    tmp_path: Path, checkpoint: Path, dataset: Dataset, unbroken: Path
) -> None:
    script = (
        "import sys\n"
        "from infimed.evaluation.dataset import Dataset\n"
        "from infimed.evaluation.predict import predict\n"
        "from infimed.evaluation.prediction import Subject\n"
        "from infimed.training.reference import open_reference\n"
        "from pathlib import Path\n"
        "def tell(event):\n"
        "    print(event.done, flush=True)\n"
        "    sys.stdin.readline()\n"  # go on only when the test says so: the kill lands where it is meant to
        "predict(open_reference(Path(sys.argv[1])), Dataset.open(sys.argv[2]), Path(sys.argv[3]), 'checkpoint',"
        " subject=Subject('checkpoint', 'checkpoint', '0' * 64, 1), on_event=tell)\n"
    )
    command = [sys.executable, "-c", script, str(checkpoint), str(dataset.folder), str(tmp_path)]
    part, done = tmp_path / "checkpoint.jsonl.part", 0
    for stop_at in (4, 17):  # inside an image's questions, and once more after a resume
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin and process.stdout
        first = int(process.stdout.readline())
        assert first == done  # nothing that was written is asked again
        done = first
        while done < stop_at:
            process.stdin.write("\n")
            process.stdin.flush()
            done = int(process.stdout.readline())
        process.stdin.write("\n" * 2)  # it computes while the signal comes
        process.stdin.flush()
        time.sleep(0.002 * stop_at)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        done = part.read_bytes().count(b"\n")
        assert stop_at <= done <= stop_at + 3
        with part.open("ab") as stream:
            stream.write(b'{"answer": "yes", "answer_t')  # a write that the kill tore
    assert not (tmp_path / "checkpoint.jsonl").exists()
    engine = open_reference(checkpoint, threads=1)
    predict(engine, dataset, tmp_path, "checkpoint", subject=SUBJECT)
    names = sorted(path.name for path in tmp_path.iterdir() if "speed" not in path.name)
    assert names == ["checkpoint.jsonl", "checkpoint.meta.json"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_finished_run_opens_no_engine_and_changes_nothing(tmp_path: Path, dataset: Dataset, unbroken: Path) -> None:
    before = {path: (path.read_bytes(), os.stat(path).st_mtime_ns) for path in unbroken.iterdir()}
    predict(lambda: pytest.fail("opened"), dataset, unbroken, "checkpoint", subject=SUBJECT)
    assert {path: (path.read_bytes(), os.stat(path).st_mtime_ns) for path in unbroken.iterdir()} == before
    with pytest.raises(PredictionError, match=r"subject\.digest"):
        other = replace(SUBJECT, digest="1" * 64)
        predict(lambda: pytest.fail("opened"), dataset, unbroken, "checkpoint", subject=other)


def test_a_grey_run_shows_mid_grey_images_of_the_same_size(tmp_path: Path, checkpoint: Path, dataset: Dataset) -> None:
    class Seen:
        """Stands between predict and the real engine, to look at what is shown."""

        def __init__(self) -> None:
            self.engine = open_reference(checkpoint, threads=1)
            self.shapes: set[tuple[int, ...]] = set()

        def score(self, messages, options):  # type: ignore[no-untyped-def]
            rgb = messages[0].parts[0].rgb
            assert (rgb == 128).all()
            self.shapes.add(rgb.shape)
            return self.engine.score(messages, options)

        def generate(self, messages, sampling):  # type: ignore[no-untyped-def]
            return self.engine.generate(messages, sampling)

    seen = Seen()
    meta = predict(seen, dataset, tmp_path, "checkpoint", subject=SUBJECT, asking=Asking(grey=True))  # type: ignore[arg-type]
    assert meta.identity.run == "checkpoint.grey" and meta.identity.image == "grey"
    assert seen.shapes == {(56, 70, 3), (70, 70, 3), (84, 70, 3)}
    rows = read_run(tmp_path, "checkpoint.grey").predictions
    alike = [row.probabilities for row in rows if row.task == "finding" and row.example_id in ("0-0", "0-3", "0-6")]
    assert len(alike) == 3 and len(set(alike)) == 1  # the same size and question: nothing else to go by


def test_generating_for_all_keeps_the_likelihood_choice_as_the_answer(
    tmp_path: Path, checkpoint: Path, dataset: Dataset, unbroken: Path
) -> None:
    asking = Asking(generate_all=True, max_tokens=4)
    predict(lambda: open_reference(checkpoint, threads=1), dataset, tmp_path, "x", subject=SUBJECT, asking=asking)
    plain = {row.example_id: row for row in read_run(unbroken, "checkpoint").predictions}
    for row in read_run(tmp_path, "x").predictions:
        assert row.generated is not None
        assert (row.choice, row.probabilities) == (plain[row.example_id].choice, plain[row.example_id].probabilities)
        assert not row.options or row.correct == (row.choice == row.answer)


def test_options_are_compared_by_the_normalisation_that_the_run_states() -> None:
    class Stated:
        level = "stated"

        def score(self, messages, options, prefix=None):  # type: ignore[no-untyped-def]
            found = {"left": (-2.0, 1), "right": (-4.5, 3), "both": (-3.0, 1)}
            return Scores(tuple(OptionScore(option, *found[option]) for option in options), 1, 0)

    example = Example(
        id="a", content=(TextRef("Which side?"),), answer="right", options=("left", "right", "both"),
        answer_type="choice", modality="text", task="laterality", source="made", license="CC0-1.0", group="g",
    )  # fmt: skip
    chosen = {}
    for how in ("per token", "raw sum", "per character"):
        asking = Asking(likelihood=how)  # type: ignore[arg-type]
        row = ask(Stated(), example, (), asking)  # type: ignore[arg-type]
        chosen[how] = row.choice
        assert asking.settings()["likelihood"] == how and row.correct is (row.choice == "right")
        assert sum(row.probabilities) == pytest.approx(1)
        assert row.options[int(np.argmax(row.probabilities))] == row.choice
        assert row.option_logprobs_nats == (-2.0, -4.5, -3.0)  # what was measured, whatever is compared
    assert chosen == {"per token": "right", "raw sum": "left", "per character": "left"}
