"""Hook of MkDocs: fences of the language ``math`` become MathML, which browsers show without a script."""

import re
from typing import Any

from latex2mathml.converter import convert

FENCE = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Markdown with each formula as MathML, one paragraph a line of the fence."""
    return FENCE.sub(lambda found: "\n".join(map(_formula, found[1].strip().splitlines())), markdown)


def _formula(line: str) -> str:
    return f'<p style="overflow: auto hidden">{convert(line, display="block")}</p>'
