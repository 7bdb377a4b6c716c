"""Keys and certificates as the container sees them: what takes a file's place on the host must take it there too."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from env.sources import load_settings
from runtime.ops.deploy import mounts


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("links", "named", "mounted"),
    [
        ({}, "own/tls.crt", ["own"]),
        ({"live/tls.crt": "../own/tls.crt"}, "live/tls.crt", ["live", "own"]),  # certbot's
        ({"own/..data": "..one", "own/sub.crt": "..data/tls.crt"}, "own/sub.crt", ["own"]),  # Kubernetes'
        ({"live/current": "../own"}, "live/current/tls.crt", ["live", "own"]),
        ({"live/tls.crt": "{}/own/tls.crt"}, "live/tls.crt", None),  # which leads elsewhere in the container
        ({}, "closed/tls.crt", None),
    ],
)
def test_files_are_given_with_the_directories_where_others_may_take_their_place(
    open_directory: Path, links: dict[str, str], named: str, mounted: list[str] | None
) -> None:
    base = open_directory
    for name in ("own/tls.crt", "own/..one/tls.crt", "live/README", "closed/tls.crt"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).touch()
    (base / "closed").chmod(0o700)
    for link, target in links.items():
        (base / link).symlink_to(target.format(base))
    settings = load_settings({"ASR_TLS_CERT_FILE": str(base / named)})
    found = mounts.given(settings, (10001, 10001))["tls_cert_file"]
    assert found.path == f"/kit/given{base / named}"
    assert found.alone == (mounted is None)
    sources = [base / name for name in mounted] if mounted else [base / named]
    assert found.mounts == [f"{source}:/kit/given{source}:ro" for source in sources]
    assert bool(mounts.warnings(settings, (10001, 10001))) == found.alone


@pytest.mark.parametrize(
    ("beside", "alone"),
    [
        ("other.key", True),  # of another service
        ("more/other.key", True),
        ("tls.d/other.key", True),
        ("tls.key", False),  # which is given too
        ("tls.crt.new", False),
        (".tls.crt.swp", False),
        ("tls1.crt", False),
        ("privkey2.pem", False),
        ("..2026_01/tls.crt", False),
    ],
)
def test_what_else_is_in_a_directory_is_not_given_with_it(open_directory: Path, beside: str, alone: bool) -> None:
    for name in ("tls.crt", "tls.key", beside):
        (open_directory / name).parent.mkdir(exist_ok=True)
        (open_directory / name).touch()
    names = {"ASR_TLS_CERT_FILE": "tls.crt", "ASR_TLS_KEY_FILE": "tls.key"}
    settings = load_settings({name: str(open_directory / file) for name, file in names.items()})
    assert [file.alone for file in mounts.given(settings, (10001, 10001)).values()] == [alone, alone]
    assert len(mounts.warnings(settings, (10001, 10001))) == 2 * alone


def test_a_directory_that_holds_more_is_not_given() -> None:
    with tempfile.NamedTemporaryFile() as file:
        settings = load_settings({"ASR_KEYS_FILE": file.name})
        assert mounts.given(settings, (0, 0))["keys_file"].sources == (Path(file.name),)
        (warning,) = mounts.warnings(settings, (0, 0))
        assert "is mounted alone" in warning
