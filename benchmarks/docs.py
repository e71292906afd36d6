"""Put the tables that were measured last into docs/benchmarks.md: `make bench-docs`, after make bench and its like.

A table stands in a block of code below a comment that names its file in benchmarks/out: `<!-- bench.txt -->`. One that
was not measured here stays as it is.
"""

import re
import sys
from pathlib import Path

OUT = Path(__file__).parent / "out"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BLOCK = re.compile(r"(<!-- ([a-z-]+\.txt) -->\n```\n).*?(?=\n```\n)", re.DOTALL)


def filled_in(page: str, tables: Path) -> str:
    """Return a page with the tables of a folder in it."""

    def table(block: re.Match[str]) -> str:
        path = tables / block[2]
        return block[1] + path.read_text().rstrip("\n") if path.exists() else block[0]

    return BLOCK.sub(table, page)


def main() -> None:
    """Rewrite the page."""
    page = PAGE.read_text()
    PAGE.write_text(filled_in(page, OUT))
    for name in BLOCK.findall(page):
        sys.stderr.write(f"{name[1]}: {'put in' if (OUT / name[1]).exists() else 'not measured here'}\n")


if __name__ == "__main__":
    main()
