"""A judge is asked through the official client, resumed, read strictly, and told apart from the rules."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infimed.cli.app import app, run
from infimed.evaluation.drift import drift
from infimed.evaluation.prediction import read_run
from infimed.evaluation.rationale_judge import FOLDER, JudgeError, asked_of, judge, judgement, read_judged
from infimed.evaluation.report import JSON_NAME, MARKDOWN_NAME, write_report

from .planted import answered, items
from .planted_probes import identity, write_rows

RECORD = {"modality": "ct", "organ": "liver", "side": "left"}
ROWS = items({("ct", "laterality"): 40})
SOUND = "<think>A CT of the liver. The mass lies on the left side.</think>left"
BROKEN = "<think>An MRI of the liver. The mass lies on the right side.</think>left"
SAID = {"modality": "right", "organ": "right", "side": "right", "follows": "consistent"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, broken in (("gguf-f16", 0), ("gguf-q2_k", 10)):
        rows = [
            replace(answered(row, True), generated=BROKEN if number < broken else SOUND, record=RECORD)
            for number, row in enumerate(ROWS)
        ]
        write_rows(tmp_path / "runs", identity(name), rows)
    return tmp_path / "runs"


def sensible(text: str) -> str:
    """Judge as a careful model would, by the words of the planted replies."""
    broken = "MRI" in json.loads(text)["reasoning"]
    said = {**SAID, "modality": "wrong", "side": "wrong", "follows": "contradicts"} if broken else SAID
    return f"Here is my verdict:\n```json\n{json.dumps(said)}\n```"


def test_a_judge_is_given_what_it_needs_and_no_key(runs: Path) -> None:
    row = read_run(runs, "gguf-f16").predictions[0]
    given = json.loads(asked_of(replace(row, answer="none")))
    assert set(given) == {"question", "options", "record", "reasoning", "answer"} and given["answer"] == "left"
    assert "<think>" not in given["reasoning"] and given["record"] == RECORD


@pytest.mark.parametrize(
    "reply",
    ["", "left", "{}", json.dumps({**SAID, "side": "maybe"}), json.dumps(SAID)[:-5], "[1]", '{"follows": "consistent"}',
     "{" * 5000],
)  # fmt: skip
def test_what_is_not_what_was_asked_for_is_unread_and_never_guessed(runs: Path, reply: str) -> None:
    row = read_run(runs, "gguf-f16").predictions[0]
    found = judgement(row, reply)
    assert not found.read and found.modality is None
    assert judgement(row, json.dumps(SAID)).read


def test_a_broken_run_goes_on_and_asks_nothing_twice(runs: Path) -> None:
    asked = []

    def failing(text: str) -> str:
        asked.append(text)
        if len(asked) == 8:
            raise JudgeError("gone")
        return sensible(text)

    one = read_run(runs, "gguf-q2_k")
    with pytest.raises(JudgeError, match="gone"):
        judge(runs, one, "careful", failing)
    assert read_judged(runs / FOLDER / "gguf-q2_k.json") is None
    with (runs / FOLDER / "gguf-q2_k.part.jsonl").open("ab") as stream:
        stream.write(b'{"torn')
    with pytest.raises(JudgeError, match="model 'careful', not 'other'"):
        judge(runs, one, "other", sensible)
    found = judge(runs, one, "careful", failing)
    assert len(asked) == 41 and len(found.rows) == 40
    whole = (runs / FOLDER / "gguf-q2_k.json").read_bytes()
    assert not list((runs / FOLDER).glob("*.part.jsonl"))
    (runs / FOLDER / "gguf-q2_k.json").unlink()
    judge(runs, one, "careful", sensible)
    assert (runs / FOLDER / "gguf-q2_k.json").read_bytes() == whole
    with pytest.raises(JudgeError, match="remove it to ask anew"):
        judge(runs, one, "other", sensible)


def test_drift_tells_a_judge_apart_from_the_rules(runs: Path, tmp_path: Path) -> None:
    alone = drift(runs, "gguf-f16").levels[0]
    assert alone.judged is None and alone.rationales is not None
    lenient = 0

    def judging(text: str) -> str:
        nonlocal lenient
        lenient += "MRI" in text
        return "no idea" if lenient == 1 and "MRI" in text else sensible(text)

    for name in ("gguf-f16", "gguf-q2_k"):
        judge(runs, read_run(runs, name), "careful", judging)
    report = drift(runs, "gguf-f16")
    (level,) = report.levels
    assert level.rationales == alone.rationales, "the rules' figures do not move"
    assert level.judged is not None and (level.judged.model, level.judged.items, level.judged.unread) == (
        "careful",
        39,
        1,
    )
    wrong = {part.name: part.shares[1].change.level for part in level.judged.parts}
    assert wrong["side"] == pytest.approx(9 / 39) == wrong["follows"] and wrong["organ"] == 0
    assert level.judged.agreement.value == 1
    write_report(report, tmp_path / "out")
    text = (tmp_path / "out" / MARKDOWN_NAME).read_text("utf-8")
    assert "Reasoning, by rule" in text and "Reasoning, by the judge careful" in text
    assert '"judged"' in (tmp_path / "out" / JSON_NAME).read_text("utf-8")
    stale = runs / FOLDER / "gguf-q2_k.json"
    stale.write_text(stale.read_text("utf-8").replace(level.facts.predictions_sha256, "0" * 64), "utf-8")
    with pytest.raises(JudgeError, match="other rows"):
        drift(runs, "gguf-f16")


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, object]]]]:
    seen: list[dict[str, object]] = []

    class Stub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, **body})
            good = body["model"] == "careful"
            message = {"role": "assistant", "content": sensible(body["messages"][1]["content"])}
            told = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}  # fmt: skip
            data = json.dumps(told if good else {"error": {"message": "no such model"}}).encode()
            self.send_response(200 if good else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/v1", seen
    served.shutdown()
    served.server_close()


def test_the_command_asks_through_the_official_client(runs: Path, server, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url, seen = server
    result = CliRunner().invoke(app, ["judge", str(runs), "--url", url, "--model", "careful", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["runs"]["gguf-q2_k"] == {"replies": 40, "unread": 0}
    assert len(seen) == 80 and {one["path"] for one in seen} == {"/v1/chat/completions"}
    assert {one["temperature"] for one in seen} == {0}
    assert run(["judge", str(runs), "--url", url, "--model", "careful"]) == 0 and len(seen) == 80


def test_a_judge_that_does_not_answer_is_one_clear_line(runs: Path, server, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("openai")
    url, _ = server
    assert run(["judge", str(runs), "--url", url, "--model", "absent"]) == 2
    told = capsys.readouterr().err
    assert "absent" in told and "no such model" in told and told.count("\n") == 1


def test_without_the_client_the_command_says_what_to_install(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    assert run(["judge", str(runs), "--url", "http://127.0.0.1:9/v1", "--model", "m"]) == 2
    assert "infimed[judge]" in capsys.readouterr().err
