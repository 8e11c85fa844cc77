"""A process of its own that finds the cluster, says where it is, and ends as it is told.

Run as ``python -m tests.servers.starter <folder of programs> <cache>``; it stays until stdin ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_arena._postgresql.servers._cluster import CLUSTERS
from pytest_arena._postgresql.servers._programs import read_programs
from pytest_arena._product.servers import _private_servers


def main() -> None:
    """Find it, print its folder, wait. A server that it starts stops soon after its last use."""
    _private_servers._IDLE_SECONDS = 1.0
    programs, cache = Path(sys.argv[1]), Path(sys.argv[2])
    sys.stdin.readline()
    cluster = CLUSTERS.find(read_programs(programs, str(programs)), cache=cache)
    print(cluster.folder.path, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
