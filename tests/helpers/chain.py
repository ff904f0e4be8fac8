"""`python -m train` for one system after another in one start:  python -m tests.helpers.chain FOLDER"""

import sys

import train
from mpi_utils.comm import guard
from tests.helpers.runs import TINY, flags


def main(comm, folder):
    for system in TINY:
        sys.argv = ["train", *flags(system, folder, system)]
        train.main(comm)


if __name__ == "__main__":
    guard(lambda comm: main(comm, sys.argv[1]))
