"""Changes of a file whose name no argument has."""

import os
import sys


def truncate(file: str) -> None:
    os.truncate(file, 0)  # here


if __name__ == "__main__":
    os.remove(".".join(sys.argv[1:]))  # here
