"""Markdown from untrusted text: names, reasons and protocols are shown literally."""

import re
from collections.abc import Sequence

from benchmark.errors import shown

# Entities rather than backslashes: they mean the same inside and outside a table, in every renderer.
_ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in "|`*\\[]~$"} | {ord("&"): "&amp;", ord("<"): "&lt;"}
_OUTER_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escape(text: str, limit: int = 300) -> str:
    """``text`` for Markdown, inside or outside a table: one line, no HTML, no column breaks, no markup."""
    return _OUTER_UNDERSCORE.sub("&#95;", shown(text, limit).translate(_ENTITIES))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table of escaped cells; the first ``left`` columns are aligned left, the others right."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
