"""The pages of README and guide, and the blocks and inline code in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
GUIDE = REPOSITORY / "studies/guide"
README = REPOSITORY / "README.md"
PAGES = [README, *sorted(GUIDE.rglob("*.md"))]
_BLOCK = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_OPERATORS = {"&&", "|", ";", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(*languages: str) -> list[Block]:
    """Return the blocks in these languages, or all."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(name(page), line, match["language"], match["text"]))
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a shell block, each as its words."""
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        start = 0
        for end, word in enumerate([*words, ";"]):
            if word in _OPERATORS:
                found.append(words[start:end])
                start = end + 1
    return [words for words in found if words]


def inline_code() -> Iterator[tuple[str, str]]:
    """Yield each page and span of inline code outside of blocks."""
    for page in PAGES:
        for span in re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text())):
            yield name(page), span
