"""Changes of a file whose name no argument has."""

import os
import sys


def truncate(file: str) -> None:
    os.truncate(file, 0)  # here


if __name__ == "__main__":
    way, *parts = sys.argv[1:]
    file = ".".join(parts)
    if way == "os.remove":
        os.remove(file)  # here
    else:
        os.rename(file, "moved")  # here
