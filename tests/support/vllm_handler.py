"""How the stand-in for vLLM answers over HTTP."""

import base64
import contextlib
import functools
import http.server
import io
import json
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from transformers import AutoProcessor

from runtime.demo import CHECKPOINT
from runtime.engines import Utterance
from runtime.model.load import backend

if TYPE_CHECKING:
    from vllm_server import Fault, StandIn

LONGEST = 60.0  # seconds before a test that hangs is failed
EVERY = 0.01  # seconds between looks whether a client has hung up
CHAT = "/v1/chat/completions"
# What the kit sends, and a vLLM honours; it would answer 200 to anything else, too, so this is stricter.
HONOURED = {
    "model": str,
    "messages": list,
    "temperature": int,
    "max_completion_tokens": int,
    "skip_special_tokens": bool,
    "return_token_ids": bool,
    "stream": bool,
    "stream_options": dict,
}
# A tokenizer that pads now and then cannot be used by two threads, hence one of the stand-ins' own, and by turns.
PROCESSING = threading.Lock()


@functools.cache
def _processor() -> Any:
    backend()
    return AutoProcessor.from_pretrained(CHECKPOINT, fix_mistral_regex=True)  # type: ignore[no-untyped-call]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 128  # many ask at once, and one that waits its turn is no fault

    def __init__(self, stand_in: "StandIn") -> None:
        self.stand_in, self.connections, self.dead = stand_in, set[socket.socket](), threading.Event()
        super().__init__(("127.0.0.1", stand_in.port), _Handler)
        if stand_in.tls:
            self.socket = stand_in.tls.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close_port(self) -> None:
        self.shutdown()
        self._thread.join()
        self.socket.close()

    def die(self) -> None:
        self.dead.set()
        self.close_port()
        with self.stand_in.lock:
            for connection in self.connections:
                _cut(connection)
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A connection that was cut, by either side."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "uvicorn", ""
    server: Server

    def setup(self) -> None:
        super().setup()
        with self.server.stand_in.lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.stand_in.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self.stand_in.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
        if self.server.dead.is_set():
            self.close_connection = True
        elif self.path.startswith("/v1/") and not self._allowed():
            self._json({"error": "Unauthorized"}, 401)
        elif self.path == "/health":
            self.server.dead.wait(LONGEST if self.stand_in.hangs else 0)
            self._reply(b"", self.stand_in.health)
        elif self.path == "/version":
            self._json({"version": self.stand_in.version})
        elif self.path == "/v1/models":
            self._json({"object": "list", "data": [self._card()]})
        else:
            self._json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        self.stand_in.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/v1/") and not self._allowed():
            self._json({"error": "Unauthorized"}, 401)
        elif asked["model"] != self.stand_in.model:
            self._refuse(404, f"The model `{asked['model']}` does not exist.")
        elif self.path == "/tokenize":
            self._tokenize(asked)
        elif self.path == CHAT:
            self._chat(asked)
        else:
            self._json({"detail": "Not Found"}, 404)

    @property
    def stand_in(self) -> "StandIn":
        return self.server.stand_in

    def _allowed(self) -> bool:
        key = self.stand_in.key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def _card(self) -> dict[str, Any]:
        model, length = self.stand_in.model, self.stand_in.max_model_len
        card = {"id": model, "object": "model", "created": 0, "owned_by": "vllm", "root": model, "parent": None}
        return {**card, "max_model_len": length}

    def _tokenize(self, asked: dict[str, Any]) -> None:
        text = asked["prompt"] if "prompt" in asked else self._prompt(asked["messages"][0]["content"])
        tokens = [token + self.stand_in.vocabulary for token in self._tokens(text)]
        length = self.stand_in.max_model_len
        self._json({"count": len(tokens), "max_model_len": length, "tokens": tokens, "token_strs": None})

    def _prompt(self, content: str) -> str:
        return self.stand_in.template(content) if self.stand_in.template else content

    def _tokens(self, text: str) -> list[int]:
        return list(self.stand_in.transcriber.tokenizer.backend(text)["input_ids"])

    def _chat(self, asked: dict[str, Any]) -> None:
        """Decode, unless there is a fault in the request, or ordered."""
        if set(asked) != set(HONOURED) or any(not isinstance(asked[name], kind) for name, kind in HONOURED.items()):
            self._refuse(400, f"expected {sorted(HONOURED)}, not {sorted(asked)}")
            return
        ((audio, text),) = [message["content"] for message in asked["messages"]]
        file = io.BytesIO(base64.b64decode(audio["input_audio"]["data"], validate=True))
        samples, rate = soundfile.read(file, dtype="float32")
        assert (rate, audio["type"], text["type"]) == (16_000, "input_audio", "text")
        is_check = asked["max_completion_tokens"] == 1
        fault = None if is_check else self.stand_in.next_fault()
        if not is_check:
            self.stand_in.heard.append({**asked, "samples": samples, "prompt": text["text"]})
        limit = self.stand_in.max_model_len
        if self.stand_in.audio_fault:
            self._refuse(*self.stand_in.audio_fault)
        elif fault and fault.kind == "refuse":
            self._refuse(fault.status, fault.message)
        elif len(samples) <= 160:
            given = f"data={{'text': '<|audio_pad|>', 'audio': [{np.array_repr(samples)}]}}"
            self._refuse(400, f"Failed to apply Qwen3ASRProcessor on {given} with kwargs={{'audio_kwargs': {{}}}}")
        elif asked["max_completion_tokens"] > limit:
            most = asked["max_completion_tokens"]
            self._refuse(400, f"max_completion_tokens={most}cannot be greater than max_model_len={limit}.")
        else:
            prompt = self._prompt(text["text"] if self.stand_in.content_format == "string" else str([text]))
            self._stream(Utterance(samples, prompt, asked["max_completion_tokens"]), fault)

    def _stream(self, utterance: Utterance, fault: "Fault | None") -> None:
        transcriber = self.stand_in.transcriber
        with PROCESSING:
            inputs = _processor()(text=[utterance.prompt], audio=[utterance.samples], return_tensors="np")
        ids = inputs["input_ids"][0]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        self._event({"choices": [role], "prompt_token_ids": ids.tolist()})
        (decoding,) = transcriber.engine.submit([utterance])
        decoded = decoding.result()
        tokens = [*decoded.tokens, *([] if decoded.truncated else transcriber.tokenizer.end_tokens[-1:])]
        ending = "length" if decoded.truncated else "stop"
        if fault and fault.kind != "lie":
            self._tell(tokens[: fault.after], 0, "abort" if fault.kind == "abort" else None)
            if not self._meets(fault):
                return
            if fault.kind == "hold":
                self._tell(tokens, fault.after, ending)
        else:
            self._tell(tokens, 0, ending)
        count = len(tokens) + (fault is not None and fault.kind == "lie")
        usage = {"prompt_tokens": len(ids), "total_tokens": len(ids) + count, "completion_tokens": count}
        self._event({"choices": [], "usage": usage})
        self._end()

    def _meets(self, fault: "Fault") -> bool:
        """Misbehave; returns whether the answer goes on after that."""
        if fault.kind == "hold":
            fault.reached.set()
            return self._is_awaited(fault)
        if fault.kind == "error":
            message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
            self._chunk(b"data: " + _json({"error": error}) + b"\n\n")
            self._end()
        elif fault.kind == "end":
            self._end()
        elif fault.kind == "cut":
            self._cut()
        return fault.kind == "abort"

    def _is_awaited(self, fault: "Fault") -> bool:
        """Wait until the fault is over; returns whether the client has waited, too."""
        for _ in range(int(LONGEST / EVERY)):
            if fault.release.wait(EVERY):
                return True
            if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                fault.hung_up.set()
                break
        self.close_connection = True
        return False

    def _tell(self, tokens: list[int], since: int, reason: str | None) -> None:
        """Tokens from place `since`, the last with a reason why it is the last."""
        text = self.stand_in.transcriber.tokenizer.backend.decode
        ends = self.stand_in.transcriber.tokenizer.end_tokens
        for start in range(since, len(tokens), self.stand_in.together):
            some = tokens[start : start + self.stand_in.together]
            told, all_told = (
                text([t for t in row if t not in ends]) for row in (tokens[:start], tokens[:start] + some)
            )
            is_last = start + len(some) == len(tokens) and reason is not None
            choice = {
                "index": 0,
                "delta": {"content": all_told.removeprefix(told) + self.stand_in.garnish},
                "logprobs": None,
                "finish_reason": reason if is_last else None,
                **({"stop_reason": None} if is_last else {}),
                "token_ids": some,
            }
            self._event({"choices": [choice]})

    def _event(self, content: dict[str, Any]) -> None:
        head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": self.stand_in.model}
        self._chunk(b"data: " + _json({**head, **content}) + b"\n\n")

    def _end(self) -> None:
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _refuse(self, status: int, message: str) -> None:
        kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
        self._json({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)

    def _json(self, content: dict[str, Any], status: int = 200) -> None:
        self._reply(_json(content), status)

    def _reply(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        _cut(self.connection)

    def log_message(self, *_: Any) -> None:
        pass


def _json(content: dict[str, Any]) -> bytes:
    """As pydantic writes it: no spaces."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # which the client has closed before
        connection.shutdown(socket.SHUT_RDWR)
