"""Clients that keep an endpoint busy and count what fails, by phases of a test."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

NUM_CLIENTS = 4


@dataclass
class Load:
    """Clients that stream one answer after the other. outcomes: (phase at the request's start, "ok" or the error)."""

    url: str
    models: list[str]
    phase: str = "steady"
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    going: threading.Event = field(default_factory=threading.Event)
    num_asking: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)

    def enter(self, phase: str) -> None:
        """Begin a phase when no request of the one before is under way, so that each counts where it failed."""
        self.going.clear()
        while self.num_asking:
            time.sleep(0.05)
        self.phase = phase
        self.going.set()

    def begin(self) -> None:
        self.going.set()
        self.threads = [threading.Thread(target=self._client, args=(number,)) for number in range(NUM_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.stopped.set()
        self.going.set()
        for thread in self.threads:
            thread.join()

    def _client(self, number: int) -> None:
        while not self.stopped.is_set():
            self.going.wait()
            with self.lock:
                self.num_asking += 1
            phase = self.phase
            model = self.models[(number + len(self.outcomes)) % len(self.models)]
            self.outcomes.append((phase, ask(self.url, model, max_tokens=20)))
            with self.lock:
                self.num_asking -= 1

    def counts(self) -> dict[str, dict[str, int]]:
        table: dict[str, Counter[str]] = {}
        for phase, outcome in self.outcomes:
            table.setdefault(phase, Counter())[outcome] += 1
        return {phase: dict(found) for phase, found in table.items()}

    def failed(self, phase: str) -> int:
        return sum(outcome != "ok" for at, outcome in self.outcomes if at == phase)

    def wait_for_ok(self, phase: str, count: int, patience_s: float = 300.0) -> None:
        end = time.monotonic() + patience_s
        while sum(outcome == (phase, "ok") for outcome in self.outcomes) < count:
            assert time.monotonic() < end, self.counts()
            time.sleep(0.2)


def ask(url: str, model: str, max_tokens: int, timeout_s: float = 180.0) -> str:
    """Stream one answer to its end: "ok", or what went wrong."""
    import openai

    direct = openai.DefaultHttpxClient(trust_env=False)
    try:
        with openai.OpenAI(
            base_url=url, api_key="none", max_retries=0, http_client=direct, timeout=timeout_s
        ) as client:
            reason = None
            for chunk in client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Hello"}],
                max_tokens=max_tokens,
                stream=True,
                extra_body={"ignore_eos": True},
            ):
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
            return "ok" if reason else "cut off"
    except openai.APIStatusError as error:
        return f"status {error.status_code}: {str(error.message)[:160]}"
    except openai.APIError as error:
        return type(error).__name__
