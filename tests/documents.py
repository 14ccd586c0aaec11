"""Documents of the repository, and what their code blocks hold."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OURS = ("python", "lightning", "diffclass", "make")


def blocks(page, *languages):
    """Language and text of each code block of a page, or of those in the given languages."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if not languages or language in languages]


def lines(text):
    """Commands of a shell block, without comments and variables before them."""
    for line in text.replace("\\\n", " ").splitlines():
        words = [word for word in shlex.split(line, comments=True) if word != "&"]
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words


def commands(page):
    """Commands of the shell blocks of a page, and of this project's commands in its text."""
    text = page.read_text(encoding="utf-8")
    found = [words for _, block in blocks(page, "sh", "bash") for words in lines(block)]
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        whole = "…" not in code and (code.startswith("make ") or len(code.split()) > 2)
        if code.startswith(("python -m benchmark.", "lightning ", "make ")) and whole:
            found.append(shlex.split(code))
    return [words for words in found if words[0] in OURS]
