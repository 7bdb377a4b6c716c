"""A package that calls itself vllm, as far as the kit's launcher and child can tell: it starts, answers, drains and
breaks in the ways of vLLM 0.18, whose lines it prints, within a second."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from processes import LONG

from env.sources import load_settings
from runtime import demo
from runtime.engines.vllm import command
from runtime.engines.vllm.command import LaunchSpec
from runtime.engines.vllm.process import VllmProcess

LOG = """
(APIServer pid=7) INFO 11-23 08:39:57 [utils.py:297]  version 0.18.0
(APIServer pid=7) Unrecognized keys in `rope_scaling` for 'rope_type'='default': {'mrope_interleaved'}
(APIServer pid=7) INFO 11-23 08:39:57 [model.py:533] Resolved architecture: Qwen3ASRForConditionalGeneration
(APIServer pid=7) WARNING 11-23 08:39:57 [vllm.py:788] Enforce eager set, disabling torch.compile and CUDAGraphs.
(EngineCore pid=8) INFO 11-23 08:40:10 [cpu_model_runner.py:62] Starting to load model /weights...
(EngineCore pid=8) \rLoading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]\r\
(EngineCore pid=8) Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 100.43it/s]
(EngineCore pid=8) INFO 11-23 08:40:10 [default_loader.py:384] Loading weights took 0.01 seconds
(EngineCore pid=8) INFO 11-23 08:40:10 [kv_cache_utils.py:1316] GPU KV cache size: 699,008 tokens
(EngineCore pid=8) \rCapturing ACL graphs (decode, FULL):  40%|####      | 2/5 [00:00<00:00, 9.1it/s]
(APIServer pid=7) INFO 11-23 08:40:11 [api_server.py:580] Starting vLLM server on http://127.0.0.1:18700
"""
BROKEN = """
(EngineCore pid=8) ERROR 11-23 08:40:10 [core.py:1100] EngineCore failed to start.
(EngineCore pid=8) ERROR 11-23 08:40:10 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=8) ERROR 11-23 08:40:10 [core.py:1100]   File "worker.py", line 57, in init_device
(EngineCore pid=8) ERROR 11-23 08:40:10 [core.py:1100] RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)   File "core_client.py", line 9, in wait
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
CORE = f"""
import signal, sys, time
LOG, BROKEN = {LOG!r}, {BROKEN!r}
def core(behaviour, loaded):
    print(BROKEN if behaviour == "broken" else LOG, flush=True)
    print("noise " * 50_000, flush=True)
    loaded.set()
    while behaviour != "broken":
        time.sleep(60)
"""
SERVER = """
import argparse, contextlib, json, multiprocessing, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from vllm.core import core

BEHAVIOUR = os.environ.get("STAND_IN", "ready")
parser = argparse.ArgumentParser()
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--shutdown-timeout", type=int)
arguments, _ = parser.parse_known_args()
context = multiprocessing.get_context("spawn")
loaded = context.Event()
child = context.Process(target=core, args=(BEHAVIOUR, loaded))
child.start()
loaded.wait()
if BEHAVIOUR == "broken":
    child.join()
    os._exit(1)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(0)
        told = {"pid": os.getpid(), "core": child.pid, "argv": sys.argv, "environ": dict(os.environ)}
        body = json.dumps(told).encode()
        self.send_response(503 if BEHAVIOUR == "slow" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

def end(*_):
    with contextlib.suppress(BrokenPipeError):  # nobody reads on if it is the kit that has died
        words = "Shutdown initiated (timeout=%s)" % arguments.shutdown_timeout
        print("INFO 11-23 08:40:12 [core.py:1201]", words, flush=True)
    if BEHAVIOUR != "deaf":
        child.kill()
        child.join()
        os._exit(0)

signal.signal(signal.SIGTERM, end)
server = ThreadingHTTPServer((arguments.host, arguments.port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("INFO:     Application startup complete.", flush=True)
while True:
    signal.pause()
"""
PLUGINS = """
import importlib.metadata, os
def load_general_plugins():
    for point in importlib.metadata.entry_points(group="vllm.general_plugins"):
        if point.name in os.environ["VLLM_PLUGINS"].split(","):
            point.load()()
"""
VLLM = """
class Lazy:
    module_name = "vllm.model_executor.models.qwen3_asr"
class ModelRegistry:
    models = {"Qwen3ASRForConditionalGeneration": Lazy()}
"""
PLATFORMS = """
class current_platform:
    device_type = "cpu"
"""


def write(site: Path) -> None:
    """Lay it into a directory for PYTHONPATH, with the packages that vLLM reads audio with."""
    modules = {"__init__": VLLM, "core": CORE, "plugins": PLUGINS, "platforms": PLATFORMS}
    modules |= {"entrypoints/__init__": "", "entrypoints/openai/__init__": "", "entrypoints/openai/api_server": SERVER}
    for name, text in modules.items():
        path = site / "vllm" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in ("librosa", "soundfile"):
        (site / f"{name}.py").write_text("", encoding="utf-8")
    distribute(site, "vllm", "0.18.0+stand.in")


def distribute(site: Path, name: str, version: str, **plugins: str) -> None:
    """Lay a distribution there, with general plugins of vLLM as `name="module:function"`."""
    directory = site / f"{name.replace('-', '_')}-{version}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n", encoding="utf-8")
    points = "".join(f"{plugin} = {place}\n" for plugin, place in plugins.items())
    (directory / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{points}", encoding="utf-8")


class ProcessEvents:
    """What a child tells."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.ends: list[str] = []
        self.ended = threading.Event()

    def end(self, reason: str) -> None:
        """The child has ended by itself."""
        self.ends.append(reason)
        self.ended.set()


def spec(site: Path, behaviour: str = "ready") -> LaunchSpec:
    """To start what `write` has laid there."""
    settings = load_settings({"ASR_DEVICE": "cpu", "ASR_ENGINE": "vllm", "ASR_DRAIN_SECONDS": "7"})
    (made,) = command.launch_specs(settings, demo.CHECKPOINT)
    return replace(made, environment={**made.environment, "PYTHONPATH": str(site), "STAND_IN": behaviour})


@contextmanager
def child(spec: LaunchSpec) -> Iterator[tuple[VllmProcess, ProcessEvents]]:
    """One that is not started yet, and what it tells; it is ended with the block."""
    events = ProcessEvents()
    made = VllmProcess(spec, on_stage=events.stages.append, on_end=events.end)
    try:
        yield made, events
    finally:
        made.stop(0)


def launched(spec: LaunchSpec) -> "subprocess.CompletedProcess[str]":
    """What the launcher alone says where it refuses."""
    return subprocess.run(spec.command, env=spec.environment, capture_output=True, text=True, check=False, timeout=LONG)
