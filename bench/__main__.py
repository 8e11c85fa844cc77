"""The command: `python -m bench [--quick | --smoke] [--only NAME]`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from time import perf_counter

from bench import boundaries, calls, effort, end_to_end, loops, start, untouched
from bench.page import replace_tables
from bench.place import ROOT, machine

MEASURES = {
    "end-to-end": end_to_end.measure,
    "boundaries": boundaries.measure,
    "untouched": untouched.measure,
    "start": start.measure,
    "calls": calls.measure,
    "loops": loops.measure,
}
PAGE = ROOT / "docs" / "explanation" / "speed.md"


def main() -> None:
    """Measure, print, and write the page, if all of it was measured in full."""
    given = _arguments()
    chosen = effort.SMOKE if given.smoke else effort.QUICK if given.quick else effort.FULL
    parts = [f"{datetime.now(UTC):%Y-%m-%d}, {machine()}.\n"]
    print(parts[0])
    for name in given.only or MEASURES:
        started = perf_counter()
        for table in MEASURES[name](chosen):
            parts.append(table.markdown())
            print(parts[-1])
        print(f"({name}: {perf_counter() - started:.0f} s)\n", file=sys.stderr)
    if chosen is effort.FULL and not given.only:
        replace_tables(PAGE, "\n".join(parts))
        print(f"written to {PAGE.relative_to(ROOT)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="within a minute; writes nothing")
    size.add_argument("--smoke", action="store_true", help="does it run at all? No number is right")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    main()
