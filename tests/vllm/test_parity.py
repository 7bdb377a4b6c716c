"""vLLM decodes the very tokens that the transformers engine decodes.

The measure is the transformers engine, one utterance at a time: in its own batches it decodes 3 of these 68 sounds
differently, where padding decides between tokens that are equally likely. vLLM packs instead of padding, and how many
it has at once changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from sounds import Samples, long, originals, varied

from env.sources import load_settings
from runtime.demo import Clip
from runtime.engines import Utterance
from runtime.transcriber import Transcriber, open_transcriber
from runtime.transcript import parse

from .program import Program

# Language and context, besides neither of them.
ASKED = [("Chinese", ""), ("English", ""), (None, "sara"), ("Chinese", "王方 sara 太阳")]


@dataclass(frozen=True)
class Question:
    """What is asked of both engines."""

    samples: Samples
    language: str | None = None
    context: str = ""
    most: int = 64  # tokens


@dataclass(frozen=True)
class Answer:
    """What one of them makes of it."""

    tokens: tuple[int, ...]
    raw: str
    truncated: bool
    language: str | None
    text: str


def answers(transcriber: Transcriber, questions: Sequence[Question], together: int) -> Iterator[Answer]:
    """In order, so many at once."""
    for start in range(0, len(questions), together):
        asked = questions[start : start + together]
        utterances = [
            Utterance(q.samples, transcriber.prompt_builder.build(language=q.language, context=q.context), q.most)
            for q in asked
        ]
        for question, decoding in zip(asked, transcriber.engine.submit(utterances), strict=True):
            decoded = decoding.result()
            heard = parse(decoded.text, forced=question.language)
            yield Answer(decoded.tokens, decoded.text, decoded.truncated, heard.language, heard.text)


@pytest.fixture(scope="module")
def questions(transcriber: Transcriber, clips: list[Clip]) -> list[Question]:
    """68 sounds as they are, half of them in every other way too, and some with too few tokens."""
    clean = originals(transcriber, clips)
    sounds = [*varied(clean, 56), *long(clean, 12)]
    asked = [Question(sound) for sound in sounds]
    asked += [Question(sound, *way) for sound in sounds[::2] for way in ASKED]
    return asked + [Question(sound, most=5) for sound in clean]


@pytest.fixture(scope="module")
def expected(transcriber: Transcriber, questions: list[Question]) -> list[Answer]:
    """What the transformers engine makes of them, one by one."""
    found = list(answers(transcriber, questions, 1))
    assert len({answer.text for answer in found}) > 60
    assert {answer.language for answer in found} == {"Chinese", "English", None}
    assert {answer.truncated for answer in found} == {False, True}
    return found


@pytest.fixture(scope="module")
def vllm(program: Program) -> Iterator[Transcriber]:
    """The server's vLLM, as one that runs elsewhere."""
    (server,) = program.get("/v1/info").json()["engine"]["servers"]
    settings = load_settings({"ASR_DEVICE": "cpu", "ASR_ENGINE": "vllm", "ASR_VLLM_URL": server["url"]})
    with open_transcriber(settings) as opened:
        yield opened


@pytest.mark.parametrize("together", [1, 8, 32])
def test_the_same_tokens(
    vllm: Transcriber,
    questions: list[Question],
    expected: list[Answer],
    together: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = list(answers(vllm, questions, together))
    same = sum(answer == wanted for answer, wanted in zip(found, expected, strict=True))
    with capsys.disabled():
        print(f"\nvLLM, {together} at a time: {same} of {len(found)} answers are those of the transformers engine")
    assert found == expected
