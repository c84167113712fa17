"""Answers of a language model: a local stub server gives good, bad, late and no answers."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from made_labels import write_cohort
from t3d.cohort.questions import INSTRUCTIONS, Reply, Service, label_by_model, read_answer
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.errors import SourceError
from t3d.text.findings import FindingSet
from t3d.types import Report

EFFUSION = FindingSet(
    name="one", names=("Effusion",), terms={}, questions={"Effusion": "Is there fluid?"}
)
TWO = FindingSet(name="two", names=("Effusion", "Nodule"), terms={})
NOT_STATED = '{"value": "not stated", "evidence": ""}'
YES = '{"value": "yes", "evidence": "left pleural effusion"}'
REPORTS = {"s1": [Report(findings="Small left pleural\neffusion. No nodule.")]}
TIMEOUT_S = 0.3

Answer = str | int | bytes | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Stub:
    """What the server was asked, and what it will answer: texts, a status, bytes, or an act."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)  # the last one stays
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server on this machine that answers from a list."""
    told, lock = Stub(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                told.asked.append(body | {"path": self.path})
                told.headers.append(dict(self.headers))
                answer = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            if callable(answer):
                answer(self)
                return
            status = answer if isinstance(answer, int) else 200
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", told.url + "/elsewhere")
            self.end_headers()
            if isinstance(answer, str):
                choice = {"message": {"role": "assistant", "content": answer}}
                self.wfile.write(json.dumps({"choices": [choice]}).encode())
            elif isinstance(answer, bytes):
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    told.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "cohort", REPORTS, {})


def service(stub: Stub, **changes: Any) -> Service:
    return replace(Service(url=stub.url, model="tiny", pause_s=0.0, parallel=1), **changes)


def values(path: Path, origin: str) -> dict[tuple[str, str], int | None]:
    rows = Cohort.open(path).labels(origin)
    return {(row.study_id, row.name): row.value for row in rows}


# ---- one answer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"value": "yes", "evidence": "A  big\\nnodule"}', Reply(1, "A big nodule")),
        ('{"evidence": "no effusion", "value": "no"}', Reply(0, "no effusion")),
        (NOT_STATED, Reply(None, "")),
        ('{"value": "not stated", "evidence": "A big"}', Reply(None, "")),
        ('```json\n{"value": "no", "evidence": "no effusion"}\n```', Reply(0, "no effusion")),
        ("yes", "bad_json"),
        ('Sure! {"value": "no", "evidence": "no effusion"}', "bad_json"),
        ('{"value": "no", "evidence": "no effusion", "why": ""}', "bad_json"),
        ('{"value": "maybe", "evidence": "no effusion"}', "bad_json"),
        ('{"value": 1, "evidence": "no effusion"}', "bad_json"),
        ('{"value": "yes", "evidence": ["A big"]}', "bad_json"),
        ('{"value": ["yes"], "evidence": "A big"}', "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("", "bad_json"),
        ('{"value": "yes", "evidence": ""}', "no_evidence"),
        ('{"value": "no", "evidence": " ... "}', "no_evidence"),
        ('{"value": "yes", "evidence": "a small nodule"}', "evidence_not_in_report"),
        ('{"value": "yes", "evidence": "A .* nodule"}', "evidence_not_in_report"),
    ],
)
def test_an_answer_is_used_only_if_it_is_strict_and_quotes_the_report(
    content: str, expected: Reply | str
) -> None:
    assert read_answer(content, "A big nodule; no effusion.") == expected


# ---- a cohort --------------------------------------------------------------------------------


def test_an_answer_becomes_a_label_with_the_place_of_its_evidence(path: Path, stub: Stub) -> None:
    stub.answers = [YES]
    made = label_by_model(path, EFFUSION, service(stub))
    assert made.origin == "model/tiny/one"
    assert (made.counts, made.left_out) == ({"Effusion": (1, 0, 0)}, {})
    (row,) = Cohort.open(path).labels(made.origin)
    text = getattr(Cohort.open(path).reports("s1")[row.report], row.section)
    assert text[row.start : row.end] == "left pleural\neffusion"
    told = json.loads(Cohort.open(path).facts["labels/model/tiny/one"])
    assert (told["by"], told["model"]) == ("model", "tiny")


def test_the_question_and_the_text_are_sent_and_nothing_that_names_the_patient(
    path: Path, stub: Stub
) -> None:
    stub.answers = [NOT_STATED]
    label_by_model(path, EFFUSION, service(stub, key="secret"))
    (asked,), (headers,) = stub.asked, stub.headers
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["model"], asked["temperature"]) == ("tiny", 0)
    assert [message["content"] for message in asked["messages"]] == [
        INSTRUCTIONS,
        "Is there fluid?\n\nReport:\nFINDINGS:\nSmall left pleural\neffusion. No nodule.",
    ]
    assert headers["Authorization"] == "Bearer secret"
    sent = json.dumps(asked) + json.dumps(headers)
    assert "s1" not in sent
    assert "patient-" not in sent
    kept = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
    assert b"secret" not in kept


def test_a_second_run_asks_nothing_and_another_model_question_or_text_does(
    path: Path, stub: Stub, tmp_path: Path
) -> None:
    stub.answers = [YES]
    first = label_by_model(path, EFFUSION, service(stub))
    again = label_by_model(path, EFFUSION, service(stub))
    assert first == again
    assert len(stub.asked) == 1
    label_by_model(path, EFFUSION, service(stub, model="large"))
    assert len(stub.asked) == 2
    label_by_model(path, replace(EFFUSION, questions={}), service(stub))
    assert stub.asked[-1]["messages"][1]["content"].startswith("Does the patient have this")
    other = write_cohort(tmp_path / "other", {"s1": [Report(findings="left pleural effusion")]}, {})
    label_by_model(other, EFFUSION, service(stub))
    assert len(stub.asked) == 4


def test_the_cache_goes_with_a_patient_who_is_forgotten(path: Path, stub: Stub) -> None:
    stub.answers = [YES]
    label_by_model(path, EFFUSION, service(stub))
    assert (path / "cache" / "answers.sqlite").is_file()
    with CohortWriter(path) as writer:
        writer.forget_patient("patient-s1")
    assert not (path / "cache").exists()
    assert Cohort.open(path).labels("model/tiny/one") == ()


@pytest.mark.parametrize("bad", ["not json", 500, 503, b"<html>", b'{"choices": []}', b""])
def test_a_bad_answer_is_asked_for_again(path: Path, stub: Stub, bad: Answer) -> None:
    stub.answers = [bad, YES]
    assert label_by_model(path, EFFUSION, service(stub)).counts == {"Effusion": (1, 0, 0)}
    assert [asked["seed"] for asked in stub.asked] == [0, 1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("I think so", "bad_json"),
        ('{"value": "yes", "evidence": "a fracture"}', "evidence_not_in_report"),
        ('{"value": "yes", "evidence": ""}', "no_evidence"),
        (500, "status_500"),
        (429, "status_429"),
        (b"x" * (1 << 21), "answer_too_long"),
    ],
)
def test_what_stays_bad_is_counted_and_gives_no_label(
    path: Path, stub: Stub, bad: Answer, reason: str
) -> None:
    stub.answers = [bad]
    made = label_by_model(path, EFFUSION, service(stub, max_tries=3))
    assert made.left_out == {reason: 1}
    assert len(stub.asked) == 3
    assert values(path, made.origin) == {}
    stub.answers = [YES]  # nothing bad was kept
    assert label_by_model(path, EFFUSION, service(stub)).counts == {"Effusion": (1, 0, 0)}


def test_a_service_that_is_silent_is_given_up(path: Path, stub: Stub) -> None:
    stub.answers = [lambda _: stub.released.wait() and None]
    made = label_by_model(path, EFFUSION, service(stub, timeout_s=TIMEOUT_S, max_tries=1))
    assert made.left_out == {"timeout": 1}


def test_a_service_that_drips_is_given_up(path: Path, stub: Stub) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):  # the client leaves
            while not stub.released.wait(TIMEOUT_S / 10):
                handler.wfile.write(b" ")

    stub.answers = [drip]
    made = label_by_model(path, EFFUSION, service(stub, timeout_s=TIMEOUT_S, max_tries=1))
    assert made.left_out == {"timeout": 1}


def test_no_proxy_of_the_environment_gets_to_see_a_report(
    path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    stub.answers = [YES]
    assert label_by_model(path, EFFUSION, service(stub)).left_out == {}


def test_a_service_that_is_not_there_is_an_error_after_some_questions(path: Path) -> None:
    many = FindingSet(name="many", names=tuple(f"f{n}" for n in range(30)), terms={})
    closed = Service(url="http://127.0.0.1:9/v1", model="m", pause_s=0.0, max_tries=1, parallel=1)
    with pytest.raises(SourceError, match=r"not answered 20 questions in a row \(no_connection\)"):
        label_by_model(path, many, closed)


@pytest.mark.parametrize("status", [301, 307, 401, 404])
def test_a_refusal_or_a_redirection_stops_at_once(path: Path, stub: Stub, status: int) -> None:
    stub.answers = [status]
    with pytest.raises(SourceError, match=f"status {status}"):
        label_by_model(path, EFFUSION, service(stub))
    assert [asked["path"] for asked in stub.asked] == ["/v1/chat/completions"]


def test_what_was_answered_before_the_end_is_kept(path: Path, stub: Stub) -> None:
    stub.answers = [YES, 401]
    with pytest.raises(SourceError, match="status 401"):
        label_by_model(path, TWO, service(stub))
    stub.answers = [NOT_STATED]
    made = label_by_model(path, TWO, service(stub))
    assert made.counts == {"Effusion": (1, 0, 0), "Nodule": (0, 0, 1)}
    assert len(stub.asked) == 3


def test_several_questions_at_a_time_keep_their_answers_apart(path: Path, stub: Stub) -> None:
    names = tuple(f"finding {n}" for n in range(40))
    stub.answers = [NOT_STATED]
    made = label_by_model(
        path, FindingSet(name="many", names=names, terms={}), service(stub, parallel=8)
    )
    assert len(stub.asked) == 40
    assert tuple(made.counts) == names


@pytest.mark.parametrize(
    "url", ["http://example.org/v1", "ftp://localhost/v1", "localhost:8000/v1", "", "https://"]
)
def test_an_address_that_would_send_reports_in_the_clear_is_refused(path: Path, url: str) -> None:
    with pytest.raises(SourceError, match="fix: reports must not travel in the clear"):
        label_by_model(path, EFFUSION, Service(url=url, model="m"))


def test_neither_text_nor_key_nor_ids_enter_the_log(
    path: Path, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.answers = ["effusion!", YES]
    with caplog.at_level(logging.DEBUG):
        label_by_model(path, EFFUSION, service(stub, key="secret"))
    assert "bad_json" in caplog.text
    for word in ("effusion", "fluid", "secret", "s1"):
        assert word not in caplog.text
