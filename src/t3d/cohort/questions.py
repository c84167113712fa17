"""Ask a language model about every report, one question a finding, and check what it answers.

The model stands behind an address that speaks the chat completions of the OpenAI interface: a
server of one's own (vLLM, llama.cpp, Ollama, ...) or a service. Nothing is sent unless a caller
gives an address, and then only the question and the report's text as the cohort holds it: no
id, no fact, no date of ours. What a report says of its patient is in its text: de-identify first
(`text/deidentify.py`), or keep the model in the house.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from t3d.cohort.labels import Labelling, record, reports_of
from t3d.cohort.schema import LabelRow, compact
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CACHE_FOLDER
from t3d.errors import SourceError, StoreError
from t3d.text.findings import FindingSet
from t3d.text.sections import SECTIONS
from t3d.types import Report

INSTRUCTIONS = (
    "You read one radiology report and answer one question about it. Answer with one JSON object "
    'and nothing else: {"value": "yes" | "no" | "not stated", "evidence": "..."}. "yes": the '
    'report says that it is there, or probably there. "no": the report says that it is not there. '
    '"not stated": the report does not mention it, or leaves it open. "evidence" is copied '
    "word for word from the report, in its language: the shortest passage that answers the "
    'question; "" if not stated. Use nothing but the report.'
)
QUESTION = "Does the patient have this finding: {name}?"
"""Asked where a finding has no question of its own."""

_VALUES: dict[str, int | None] = {"yes": 1, "no": 0, "not stated": None}
_MAX_ANSWER_BYTES = 1 << 20
_MAX_PAUSE_S = 60.0
_STOP_AFTER = 20  # failures of the service in a row, each after all its tries
_FINAL = frozenset({401, 403, 404, 405})  # of HTTP: no question will fare better
_HERE = ("localhost", "127.0.0.1", "::1")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n```\s*\Z", re.DOTALL)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where the model is and how patiently it is asked."""

    url: str  # up to and without /chat/completions, e.g. http://localhost:8000/v1
    model: str
    key: str = ""  # sent as a bearer token, never written down
    timeout_s: float = 120.0  # for one request, from sending to the last byte
    max_tries: int = 4  # of one question
    pause_s: float = 1.0  # before the second try; doubled each time
    parallel: int = 4  # questions at a time


@dataclass(frozen=True, slots=True)
class Reply:
    """A checked answer: evidence was found in the report, or the value is None."""

    value: int | None  # 1 yes, 0 no, None = not stated
    evidence: str  # as it stands in the report; "" with None


class _NoAnswerError(Exception):
    """The service gave nothing to read; its text is a reason code."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports go to the address that was given and to no other."""

    def redirect_request(self, *_: object) -> None:
        """Follow nothing: the status becomes an error."""


def label_by_model(
    path: str | Path, findings: FindingSet, service: Service, *, origin: str = ""
) -> Labelling:
    """Ask a model about every report of a cohort, one question a finding, and record it.

    Answers are kept in the cohort's `cache/answers.sqlite` by a digest of model, question and
    text, so that a stopped run goes on where it was and a second one asks nothing. Forgetting a
    patient removes that file. The findings of a preliminary report count only where there is no
    final one; several final reports are read as one text.

    Args:
        path: The cohort.
        findings: What to ask for; its `questions` are used where there are any.
        service: Where the model is.
        origin: Under which the labels are kept; "" = "model/", the model, "/", the findings.

    Returns:
        Counts for each finding; left out are studies without a report (`no_report`) and questions
        without a usable answer, by reason: `bad_json`, `evidence_not_in_report`, `no_evidence`,
        `timeout`, `no_connection`, `status_500`, ... They have no label, not even "not stated".

    Raises:
        SourceError: The address cannot be used, refuses the request, or has stopped answering;
            what was answered so far is kept.
        StoreError: The cohort cannot be read or written.

    Source:
        One yes/no question a finding and report, as RadFinder asked its 337 (arXiv:2603.02026,
        code `rate`); the third answer and the checked evidence are ours.
    """
    _check(service)
    cohort = Cohort.open(path)
    left_out: Counter[str] = Counter()
    rows: list[LabelRow] = []
    with _cache(cohort.path) as cache, ThreadPoolExecutor(service.parallel) as pool:
        asker = _Asker(service, findings, cache, pool)
        for study_id, reports in reports_of(cohort, left_out):
            for name, reply in asker.ask(reports):
                if isinstance(reply, str):
                    left_out[reply] += 1
                else:
                    rows.append(_row(study_id, name, reply, reports))
    told = compact(
        {
            "by": "model",
            "model": service.model,
            "findings": findings.digest,
            "instructions": hashlib.sha256(INSTRUCTIONS.encode()).hexdigest(),
        }
    )
    name = origin or f"model/{service.model}/{findings.name}"
    return record(path, name, rows, left_out, told=told)


class _Asker:
    """Asks the questions of one set of findings about one text after the other."""

    def __init__(
        self,
        service: Service,
        findings: FindingSet,
        cache: sqlite3.Connection,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._service, self._cache, self._pool = service, cache, pool
        self._questions = {
            name: findings.questions.get(name, QUESTION.format(name=name))
            for name in findings.names
        }
        self._failed = 0  # in a row

    def ask(self, reports: Sequence[Report]) -> Iterator[tuple[str, Reply | str]]:
        """Yield (finding, reply or reason) for all findings, from the cache where it has them."""
        text = _text(reports)
        keys = {n: _key(self._service.model, q, text) for n, q in self._questions.items()}
        replies = {name: _kept(self._cache, key) for name, key in keys.items()}
        missing = [name for name, reply in replies.items() if reply is None]
        ask = partial(_asked, self._service, text)
        try:
            answers = self._pool.map(ask, [self._questions[name] for name in missing])
            for name, reply in zip(missing, answers, strict=True):
                replies[name] = reply
                if isinstance(reply, Reply):
                    told = (keys[name], reply.value, reply.evidence)
                    self._cache.execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?)", told)
                self._count(reply)
        finally:
            self._cache.commit()
        yield from ((name, reply) for name, reply in replies.items() if reply is not None)

    def _count(self, reply: Reply | str) -> None:
        """Stop after many failures of the service in a row; bad answers are not failures."""
        down = isinstance(reply, str) and reply.startswith(("timeout", "no_connection", "status"))
        self._failed = self._failed + 1 if down else 0
        if self._failed >= _STOP_AFTER:
            raise SourceError(
                f"the language model has not answered {self._failed} questions in a row ({reply})",
                expected="a service that answers",
                fix="see to the service, then run again: what was answered is kept",
            )


def read_answer(content: str, text: str) -> Reply | str:
    """Check what a model answered.

    Args:
        content: One JSON object as `INSTRUCTIONS` ask for it, bare or in a fence of three
            backquotes; no other key, no text around it.
        text: The report it is about.

    Returns:
        The value, and the evidence as it stands in the text (blanks may differ); or why it
        cannot be used: "bad_json", "no_evidence" or "evidence_not_in_report".
    """
    fenced = _FENCE.match(content)
    try:
        told = json.loads(fenced.group(1) if fenced else content)
    except (ValueError, RecursionError):
        return "bad_json"
    if not isinstance(told, dict) or set(told) != {"value", "evidence"}:
        return "bad_json"
    value, evidence = told["value"], told["evidence"]
    if not isinstance(value, str) or value not in _VALUES or not isinstance(evidence, str):
        return "bad_json"
    if _VALUES[value] is None:
        return Reply(None, "")
    if not any(letter.isalnum() for letter in evidence):
        return "no_evidence"
    found = _find(evidence, text)
    return Reply(_VALUES[value], text[slice(*found)]) if found else "evidence_not_in_report"


def _find(evidence: str, text: str) -> tuple[int, int] | None:
    """Find a passage in a text; blanks may differ."""
    words = [re.escape(word) for word in evidence.split()]
    found = re.search(r"\s+".join(words), text)
    return found.span() if found else None


def _text(reports: Iterable[Report]) -> str:
    """What is sent of a study's reports: sections with their names."""
    held = list(reports)
    final = [report for report in held if report.status != "preliminary"] or held
    parts = [
        f"{section.upper()}:\n{getattr(report, section)}"
        for report in final
        for section in SECTIONS
        if getattr(report, section)
    ]
    return "\n\n".join(parts)


def _row(study_id: str, name: str, reply: Reply, reports: Sequence[Report]) -> LabelRow:
    """Turn a reply into a label with the place of its evidence."""
    for number, report in enumerate(reports):
        for section in SECTIONS:
            found = _find(reply.evidence, getattr(report, section)) if reply.evidence else None
            if found is not None:
                return LabelRow(
                    study_id=study_id,
                    name=name,
                    value=reply.value,
                    report=number,
                    section=section,
                    start=found[0],
                    end=found[1],
                )
    return LabelRow(study_id=study_id, name=name, value=reply.value)


def _key(model: str, question: str, text: str) -> str:
    """Digest under which an answer is kept."""
    return hashlib.sha256(compact([model, INSTRUCTIONS, question, text]).encode()).hexdigest()


@contextmanager
def _cache(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the answers kept beside a cohort."""
    path = folder / CACHE_FOLDER / "answers.sqlite"
    try:
        path.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60.0)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS answer "
                "(key TEXT PRIMARY KEY, value INTEGER, evidence TEXT NOT NULL) WITHOUT ROWID"
            )
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"cohort {folder.name}: answers cannot be kept ({error})",
            expected="room and permission to write in the cohort's folder",
            fix="remove cache/answers.sqlite if it is damaged; its answers are asked for again",
        ) from error


def _kept(cache: sqlite3.Connection, key: str) -> Reply | str | None:
    """Look an answer up."""
    row = cache.execute("SELECT value, evidence FROM answer WHERE key = ?", (key,)).fetchone()
    return Reply(*row) if row else None


# ---- the service -----------------------------------------------------------------------------


def _check(service: Service) -> None:
    """Refuse an address that cannot be used, or would send reports in the clear."""
    parts = urlsplit(service.url)
    fine = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)
    if not (fine and parts.hostname and service.model and service.max_tries > 0):
        raise SourceError(
            f"a language model at {parts.scheme or 'no scheme'}://{parts.hostname or 'no host'}",
            expected="https://..., or http:// on this machine, and the model's name",
            fix="reports must not travel in the clear: use https, or a tunnel to this machine",
        )


def _asked(service: Service, text: str, question: str) -> Reply | str:
    """Ask one question until the answer can be used; else the reason of the last try."""
    reply: Reply | str = ""
    for number in range(service.max_tries):
        if number:
            time.sleep(min(service.pause_s * 2 ** (number - 1), _MAX_PAUSE_S))
        try:
            reply = read_answer(_completion(service, text, question, seed=number), text)
        except _NoAnswerError as error:
            reply = str(error)
        if isinstance(reply, Reply):
            break
        _log.info("a question was not answered (%s), try %d", reply, number + 1)
    return reply


def _completion(service: Service, text: str, question: str, *, seed: int) -> str:
    """Send one request and give the text of the answer."""
    messages = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": f"{question}\n\nReport:\n{text}"},
    ]
    body = {"model": service.model, "messages": messages, "temperature": 0, "seed": seed}
    headers = {"Content-Type": "application/json"}
    if service.key:
        headers["Authorization"] = f"Bearer {service.key}"
    address = service.url.rstrip("/") + "/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
    deadline = time.monotonic() + service.timeout_s
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(request, timeout=service.timeout_s) as response:
            return _content(_received(response, deadline))
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.code) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        late = isinstance(reason, TimeoutError)
        raise _NoAnswerError("timeout" if late else "no_connection") from None


def _refusal(status: int) -> Exception:
    """Tell a status that stops everything from one that may be this question's alone."""
    if status in _FINAL or 300 <= status < 400:
        return SourceError(
            f"the language model's address answers with status {status}",
            expected="a chat completions address that takes this model and key",
            fix="check address, model and key; redirections are not followed",
        )
    return _NoAnswerError(f"status_{status}")


def _received(response: HTTPResponse, deadline: float) -> bytes:
    """Read an answer, not longer and not larger than allowed."""
    parts, size = [], 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            raise _NoAnswerError("answer_too_long")
        if time.monotonic() > deadline:
            raise _NoAnswerError("timeout")
    return b"".join(parts)


def _content(raw: bytes) -> str:
    """Take the text out of a chat completion."""
    try:
        told: Any = json.loads(raw)
        content = told["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise _NoAnswerError("bad_json") from None
    if not isinstance(content, str):
        raise _NoAnswerError("bad_json")
    return content
