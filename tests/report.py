"""The tables of docs/reliability.md, each written by the run that it tells of."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/reliability.md"


def write(part: str, text: str, page: Path = PAGE) -> None:
    """Replace what the page has between the marks of that part.

    Raises:
        ValueError: It has no such marks.
    """
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    before = page.read_text()
    after, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n{text.strip()}\n\n{end}",
        before,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{page} has no part {part!r}")
    page.write_text(after)


def table(head: tuple[str, str], rows: dict[str, str]) -> str:
    """Two columns, the second to the right."""
    lines = [
        f"| {' | '.join(head)} |",
        "|---|---:|",
        *(f"| {name} | {what} |" for name, what in rows.items()),
    ]
    return "\n".join(lines)
