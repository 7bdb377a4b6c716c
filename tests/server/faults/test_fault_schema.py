"""The API is what its OpenAPI document says: schemathesis asks for what that allows, and for what it does not."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serving import PATIENCE, Served, served

from runtime.server.app import create_app
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber

EXAMPLES = 40  # of each operation, some that the document allows and some that it does not
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
DOCUMENT = schemathesis.openapi.from_dict(create_app(ServerState()).openapi())
OPERATIONS = {result.ok().label: result.ok() for result in DOCUMENT.get_all_operations() if isinstance(result, Ok)}


WRONG = [label for label, operation in OPERATIONS.items() if operation.body]  # what can be asked in a wrong way


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """Answers of a few tokens are enough, and no name is known but this machine's: URLs are made up too."""
    known = socket.getaddrinfo

    def resolve(host: Any, *place: Any, **kind: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *place, **kind)

    with pytest.MonkeyPatch.context() as patch, served(transcriber, max_new_tokens=4) as running:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield running


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        *((label, GenerationMode.NEGATIVE) for label in WRONG),
    ],
)
def test_it_answers_as_documented(server: Served, label: str, mode: GenerationMode) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=PATIENCE)

    ask()
    assert server.get("/health/live").status_code == 200
