"""Prometheus metrics of the work done since the start. routes/health.py has those of the current state."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from runtime.engines import Observer
from runtime.host.tls import Tls

# Bounds of buckets, in seconds unless noted. They are closest where an answer of Qwen3-ASR-1.7B on an Ascend
# 910B4 is expected: 0.73 s for a clip of 4.2 s (RTF 0.175), of which each of some 20 tokens is 0.03 s.
REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8, 15, 30, 60, 120, 300, 600)  # 600: the default limit
WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)  # from ASR_BATCH_WAIT_MS on
FIRST_TOKEN_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4, 8, 15, 30, 60)  # under 0.5 feels immediate
PREFILL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 4, 8)
STEP_BUCKETS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 0.5, 1)
RTF_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5)  # from 1 on, speech comes faster
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # utterances; ASR_MAX_BATCH is 256 at most


class EngineMetrics(Observer):
    """Observes all engines of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waits = Histogram(
            "asr_queue_wait_seconds",
            "Time of an utterance between its coming to the engine and its being decoded.",
            registry=registry,
            buckets=WAIT_BUCKETS,
        )
        self._batches = Histogram(
            "asr_batch_utterances", "Utterances that were taken together.", registry=registry, buckets=BATCH_BUCKETS
        )
        self._prefills = Histogram(
            "asr_prefill_seconds",
            "Time of a batch's audio and prompts, up to the first token of each utterance.",
            registry=registry,
            buckets=PREFILL_BUCKETS,
        )
        self._steps = Histogram(
            "asr_decode_step_seconds",
            "Time of one further token of each utterance.",
            registry=registry,
            buckets=STEP_BUCKETS,
        )

    def batch_started(self, waits: Sequence[float], audio_seconds: float) -> None:  # noqa: ARG002 - Observer's
        """Count a batch, and how long each of its utterances has waited."""
        self._batches.observe(len(waits))
        for wait in waits:
            self._waits.observe(wait)

    def prefill_done(self, seconds: float) -> None:
        self._prefills.observe(seconds)

    def decode_step(self, seconds: float) -> None:
        self._steps.observe(seconds)


class Metrics:
    """The process's metrics in a registry of its own. `engine` observes engines (`open_transcriber`); the realtime
    route tracks `realtime_sessions`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.engine = EngineMetrics(self.registry)
        self.realtime_sessions = Gauge(
            "asr_realtime_sessions", "Realtime sessions that are open.", registry=self.registry
        )
        self._requests = Counter(
            "asr_requests",
            "Requests that ended, by the route's template and status; 499 where the client hung up.",
            ("route", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "asr_request_seconds",
            "Time of a request from its head to the end of the answer, or of a session.",
            ("route",),
            registry=self.registry,
            buckets=REQUEST_BUCKETS,
        )
        self._audio = Counter("asr_audio_seconds", "Audio transcribed.", registry=self.registry)
        self._tokens = Counter("asr_tokens", "Tokens decoded for it.", registry=self.registry)
        self._rtf = Histogram(
            "asr_rtf",
            "Real-time factor of a transcribed request: its time, waiting included, over its audio's.",
            registry=self.registry,
            buckets=RTF_BUCKETS,
        )
        self._first_token = Histogram(
            "asr_first_token_seconds",
            "Time from a request's being accepted to the first token of its transcript.",
            registry=self.registry,
            buckets=FIRST_TOKEN_BUCKETS,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def add_certificate_expiry(self, tls: Tls | None) -> None:
        """Export when the certificate in use expires, if there is one."""
        if tls:
            Gauge(
                "asr_tls_certificate_expiry_timestamp_seconds",
                "Until when the certificate in use is valid (notAfter), in seconds since the epoch.",
                registry=self.registry,
            ).set_function(lambda: tls.certificate.expires)

    def request_done(self, route: str, code: int, seconds: float) -> None:
        """Count a request, or a session, that ended."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def segment_decoded(self, audio_seconds: float, tokens: int) -> None:
        """Count a segment's audio and tokens; silent segments have no tokens."""
        self._audio.inc(audio_seconds)
        self._tokens.inc(tokens)

    def first_token(self, seconds: float) -> None:
        """Observe the time from accepting a request to its first token."""
        self._first_token.observe(seconds)

    def transcript_done(self, audio_seconds: float, seconds: float) -> None:
        """Observe a transcript's real-time factor; `seconds` since its request was accepted."""
        if audio_seconds:
            self._rtf.observe(seconds / audio_seconds)
