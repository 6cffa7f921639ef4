"""Tables of text: aligned for a terminal, or in Markdown for documents."""

from collections.abc import Sequence

import tabulate


def aligned(
    heads: Sequence[object], rows: Sequence[Sequence[object]], *, last: str = "right"
) -> str:
    """Returns a table for a terminal.

    Args:
        heads: Titles of the columns.
        rows: Cells, shown as `str` writes them.
        last: Side to which the last column is aligned. The first one is aligned to the left, the
            others to the right.
    """
    sides = ["left", *["right"] * (len(heads) - 2), last][: len(heads)]
    # Titles are a row: tabulate widens columns by two spaces whose title is wider than their cells.
    table = tabulate.tabulate(
        [heads, *rows], tablefmt="plain", disable_numparse=True, colalign=sides
    )
    return "\n".join(line.rstrip() for line in table.splitlines())


def markdown(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table in Markdown, as `str` writes its cells."""
    return tabulate.tabulate(rows, heads, tablefmt="github", disable_numparse=True)
