"""Checks of the Python that has vLLM: its packages go together, it reads audio, and qwen-asr stays out."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from env.field import variable
from env.sources import under_project
from runtime.host.probe import NOT_RECORDED, CommandResult
from runtime.ops.doctor import vllm_probe
from runtime.ops.doctor.docker import cann_version
from runtime.ops.doctor.findings import CheckResult, Examination, Status
from runtime.vllm_releases import OLDEST, ROWS, TESTED, VLLM_DISTRIBUTIONS, Misfit, fit, misfits, row_of

PATIENCE = 60.0  # seconds; a sitecustomize that imports qwen_asr, and with it vLLM, takes ten
PLATFORM = "ascend"  # vllm-ascend's plugin in the group vllm.platform_plugins
REBUILD = "build the image again: make build"
WITHOUT = "without qwen-asr"
BENEATH = "/opt/python-beneath"  # in the kit's image: docker/install-stack's link to the Python that has vLLM


@dataclass(frozen=True)
class Inside:
    """What the interpreter told; runtime/ops/doctor/vllm_probe.py says how it is found."""

    python: str
    machine: str
    versions: dict[str, str]
    missing: list[str]
    qwen_asr: bool
    importers: list[str]
    platforms: list[str]
    chosen: str | None

    @property
    def vllm(self) -> str:
        """The distribution that is vLLM; empty if there is none."""
        return next((name for name in VLLM_DISTRIBUTIONS if name in self.versions), "")


def versions(case: Examination) -> CheckResult | None:
    """vLLM is there, and vllm-ascend, CANN, torch, torch-npu, Python and transformers are those that go with it."""
    if not _asked_for(case):
        return None
    answer = _ask(case)
    if answer.fault:
        advice = f"export {variable('vllm_python')}=… to a Python that has vLLM"
        return CheckResult(
            "warn" if answer.fault == NOT_RECORDED else "fail", f"{_python(case)}: {answer.fault}", advice
        )
    found = _parse(answer)
    if not found.vllm:
        return CheckResult("fail", f"{_python(case)} has no vLLM", no_vllm())
    if "vllm-ascend" not in found.versions:
        return _without_ascend(case, found)
    return _with_ascend(case, found)


def trap(case: Examination) -> CheckResult | None:
    """Nothing puts qwen-asr's vLLM class, made for vLLM 0.14, in the place of the one that vLLM has built in."""
    found = _inside(case)
    if not found:
        return None
    if found.importers:
        advice = _pip(case, "uninstall qwen-asr; then take out what imports it", instead=WITHOUT)
        return CheckResult("fail", f"qwen_asr is imported by {'; '.join(found.importers)}", advice)
    chosen = found.chosen
    if chosen is not None and PLATFORM in found.platforms and PLATFORM not in chosen.split(","):
        evidence = f"VLLM_PLUGINS={chosen!r} leaves out vllm-ascend's {PLATFORM}: vLLM would find no NPU"
        return CheckResult("fail", evidence, "unset VLLM_PLUGINS")
    if found.qwen_asr:
        evidence = "qwen-asr is beside vLLM: harmless as long as nothing imports it there, which the kit prevents"
        advice = f"{_pip(case, 'uninstall qwen-asr', instead=WITHOUT)}; or never start vLLM with qwen-asr-serve"
        return CheckResult("warn", evidence, advice)
    return CheckResult("pass", "qwen-asr is not there")


def audio(case: Examination) -> CheckResult | None:
    """librosa and soundfile are there: without them vLLM starts, and refuses every audio."""
    found, both = _inside(case), " and ".join(vllm_probe.AUDIO)
    if not found:
        return None
    if found.missing:
        evidence = f"{' and '.join(found.missing)} missing: vLLM would start, and answer every request with an error"
        return CheckResult("fail", evidence, _pip(case, f"install {' '.join(found.missing)}", instead=f"with {both}"))
    return CheckResult("pass", f"{both} are there")


def another_image(what: str) -> str:
    """What to do where another image is needed."""
    return f"export {variable('base_image')}=… to an image {what}, then make build"


def has_vllm(case: Examination) -> bool:
    """Whether the Python that would run vLLM has it."""
    answer = _ask(case)
    return not answer.fault and bool(_parse(answer).vllm)


def no_vllm() -> str:
    """What to do where there is no vLLM."""
    names = variable("stack"), variable("vllm_python"), variable("vllm_url")
    return "export {}=vllm, or {}=… to a Python that has it, or {}=… to servers that run elsewhere".format(*names)


def _without_ascend(case: Examination, found: Inside) -> CheckResult:
    """vLLM alone, as on a CPU."""
    named = f"{found.vllm} {found.versions[found.vllm]}"
    if case.wants_npu:
        reason = f"{named} without vllm-ascend, so it cannot use an NPU"
        return CheckResult("fail", reason, no_vllm())
    return _known(f"{named}, for the CPU", found.versions[found.vllm])


def _with_ascend(case: Examination, found: Inside) -> CheckResult:
    release = found.versions["vllm-ascend"]
    if not row_of(release):
        known = ", ".join(name for row in ROWS for name in row.vllm_ascend)
        evidence = f"vllm-ascend {release}: the kit does not know what goes with it, only with {known}"
        return CheckResult("warn", evidence, REBUILD)
    cann = cann_version(case.host)
    amiss = list(misfits(found.versions, python=found.python, cann=cann, machine=found.machine))
    if amiss:
        told = "; ".join(f"{misfit.name} {misfit.installed or 'missing'}, not {misfit.wanted}" for misfit in amiss)
        status: Status = "warn" if all(misfit.harmless for misfit in amiss) else "fail"
        return CheckResult(status, f"with vllm-ascend {release}: {told}", _cure(case, amiss))
    on = f", CANN {cann}" if cann else ""
    return _known(f"vllm-ascend {release} and what goes with it{on}", found.versions["vllm"])


def _known(named: str, vllm: str) -> CheckResult:
    """A pass where the kit is tested with this vLLM."""
    outcome = judge_release(named, vllm)
    return CheckResult(outcome.status, outcome.evidence, REBUILD if outcome.fix else "")


def judge_release(named: str, vllm: str) -> CheckResult:
    """Whether a release of vLLM, which `named` describes, fits: as the engine takes, warns of or refuses it."""
    verdict = fit(vllm)
    if verdict == "tested":
        return CheckResult("pass", named)
    if verdict == "too old":
        return CheckResult("fail", f"{named}; the kit needs vLLM {OLDEST} or newer", f"install vLLM {TESTED} there")
    return CheckResult("warn", f"{named}; the kit is tried with vLLM {TESTED}", f"install vLLM {TESTED} there")


def _cure(case: Examination, amiss: list[Misfit]) -> str:
    """The command that installs what fits: the image's build, or pip."""
    wanted = [misfit.install for misfit in amiss if misfit.install]
    if len(wanted) < len(amiss) or not case.settings.vllm_python:
        return REBUILD
    empty = "VLLM_TARGET_DEVICE=empty " if any(word.startswith("vllm==") for word in wanted) else ""
    return f"{empty}{_python(case)} -m pip install {' '.join(repr(word) for word in wanted)}"


def _pip(case: Examination, words: str, *, instead: str) -> str:
    """A command for the Python that has vLLM; in the kit's container, which is read-only, another image."""
    ours = case.place == "container" and case.host.state(BENEATH).there
    return another_image(instead) if ours else f"{_python(case)} -m pip {words}"


def _asked_for(case: Examination) -> bool:
    """Whether vLLM runs where this is asked. On a host it does in the container, unless this host has it too."""
    if case.front:
        return False
    return case.place == "container" or bool(case.settings.vllm_python) or has_vllm(case)


def _inside(case: Examination) -> Inside | None:
    """What is inside; None where there is no vLLM, as `versions` tells."""
    return _parse(_ask(case)) if _asked_for(case) and has_vllm(case) else None


def _python(case: Examination) -> str:
    chosen = case.settings.vllm_python
    return str(under_project(chosen)) if chosen else sys.executable


def _ask(case: Examination) -> CommandResult:
    return case.host.run("vllm-python", [_python(case), str(Path(vllm_probe.__file__))], seconds=PATIENCE)


def _parse(answer: CommandResult) -> Inside:
    """From the last line: a .pth file may print."""
    return Inside(**json.loads(answer.output.splitlines()[-1]))
