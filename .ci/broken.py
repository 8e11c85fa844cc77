"""Say in one line which tests the development version of a library breaks.

The last run of pytest had that version. This runs its failed tests again with the released one:
what passes now is broken by the library.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"


def failed() -> set[str]:
    """Return the tests that failed in the last run."""
    return set(json.loads(FAILED.read_text(encoding="utf-8"))) if FAILED.exists() else set()


def main(library: str) -> int:
    """Print the line. Return 1 if the library breaks a test."""
    before = failed()
    if before:
        pytest = [str(ROOT / ".venv" / "bin" / "pytest"), "-q", "--last-failed"]
        subprocess.run(pytest, cwd=ROOT, check=False)  # noqa: S603 - no input of others
    broken = sorted(before - failed())
    verb = f"breaks {', '.join(broken)}" if broken else "breaks no test"
    print(f"the development version of {library} {verb}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
