"""Write docs/reference/bad-inputs.md from the registry in tests/bad_inputs/."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write the page."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from bad_inputs.registry import page

    (REPOSITORY / "docs/reference/bad-inputs.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
