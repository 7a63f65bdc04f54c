"""The code blocks of a page of the documentation, and how what they print is compared with what the page shows."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Languages of blocks that are run.
RUN = ("console", "bash", "python", "sh")  # of sh the whole, as a script
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```\n(?:<!-- (.+?) -->\n)?", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_ANY_NUMBER = r"(?:-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|-)"  # a lone - is a number that isn't defined


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int
    """Where it starts, from 1."""
    marker: str
    """The comment below it, such as ``needs data: …``; empty = none."""


@dataclass(frozen=True)
class Command:
    """One command of a block, and what the page shows of its output; None = nothing is shown."""

    words: str
    output: str | None


def pages():
    """Every page a reader sees, as text that names its place."""
    yield from sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    )


def blocks(page):
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 1, found[3] or "")
        for found in _FENCE.finditer(text)
    ]


def commands(block):
    """The commands of a ``console`` or ``bash`` block; a line that ends in a backslash goes on."""
    text = block.text.replace("\\\n", " ")
    if block.language == "bash":
        return [Command(line, None) for line in text.splitlines() if line.split("#")[0].strip()]
    first, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not first, f"line {block.line}: a console block starts with a command, `$ …`"
    found = [part.partition("\n") for part in parts]
    return [Command(words, output.strip("\n") or None) for words, _, output in found]


def shows(expected, printed):
    """Whether a page shows what was printed: any number stands for any other, … for any text (alone: any lines)."""
    pattern = "\n".join(map(_line, _spaced(expected).splitlines())).replace("\n(?:.*\n)*?\n", "\n(?:.*\n)*?")
    return re.fullmatch(pattern, _spaced(printed)) is not None


def _line(text):
    if text == "…":
        return "(?:.*\n)*?.*"
    parts = []
    for part in re.split(r"(…)", text):
        if part == "…":
            parts.append(".*")
        else:
            words = _NUMBER.split(part)
            parts.append(_ANY_NUMBER.join(map(re.escape, words)))
    return "".join(parts)


def _spaced(text):
    """Runs of spaces as one: columns move with the numbers in them."""
    return "\n".join(re.sub(" +", " ", line).strip() for line in text.strip("\n").splitlines())
