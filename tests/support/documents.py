"""What tests read of the documents."""

import re


def commands(text: str) -> list[str]:
    """What a README tells one to type, in its console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def outline(text: str) -> list[str]:
    """Headings' depths, blocks, tables' rows and links, in order: what two languages of one text have in common."""
    marks = re.findall(r"^(#+ |```\w+|\| |- |> |<!-- [\w ]+)|(?<=\]\()([^)]+)(?=\))", text, re.MULTILINE)
    return [mark or "link" for mark, _ in marks]
