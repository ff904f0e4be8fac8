"""Training in which ranks kill themselves:  python -m tests.helpers.losing FOLDER PLAN arguments of train...

PLAN is a JSON list of [size, rank, iteration, part, delay]: while there are `size` ranks, the one with this
number dies in this iteration, or with iteration -1 as soon as it goes on after a loss, at the collective that
is `part` (0 to 1) of those of the iteration before, `delay` seconds after it came there. A victim writes when
and in which phase it died to FOLDER/died_PROCESS, and rank 0 when an iteration begins, to FOLDER/began.
"""

import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

from mpi_utils import elastic, loop
from mpi_utils.comm import Comm, world

RECOVERY = 40  # collectives, about


def die(folder, phase, delay):
    def now():
        (folder / f"died_{os.getpid()}").write_text(f"{phase[0]} {time.monotonic()}")
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Timer(delay, now).start() if delay else now()


def arm(folder, plan):
    """Wrap what the phases are made of; every collective is a place to die at."""
    comm, events = world(), [0, RECOVERY]  # collectives of this iteration so far, of the one before
    phase, iteration = ["between"], [-2]

    def within(name, function):
        def wrapped(*arguments, **options):
            before, phase[0] = phase[0], name
            try:
                return function(*arguments, **options)
            finally:
                phase[0] = before

        return wrapped

    def call(self, *arguments, call=Comm._call):
        at(events[0] / events[1])
        events[0] += 1
        call(self, *arguments)

    def at(part):
        for number, (size, rank, when, where, delay) in enumerate(plan):
            late = iteration[0] > when >= 0  # it had fewer collectives than the one before
            if (comm.size, comm.rank) == (size, rank) and (late or iteration[0] == when and part >= where):
                plan.pop(number)
                return die(folder, phase, delay)

    def exchange(*arguments, exchange=loop._exchange):
        return within("exchange", exchange)(*arguments)

    def train(*arguments, train=loop._train):
        learner = arguments[0]
        inner = learner.train_iteration

        def train_iteration(i):
            iteration[0], events[:] = i, [0, max(1, events[0]) if iteration[0] >= 0 else RECOVERY]
            if comm.is_root:
                with open(folder / "began", "a") as file:
                    file.write(f"{comm.size} {i} {time.monotonic()}\n")
            return within("iteration", inner)(i)

        learner.train_iteration = train_iteration
        return train(*arguments)

    def recover(self, recover=elastic.Kept.recover):
        iteration[0], events[:] = -1, [0, RECOVERY]
        return within("recovery", recover)(self)

    Comm._call, loop._exchange, loop._train, elastic.Kept.recover = call, exchange, train, recover
    loop._save = within("save", loop._save)
    elastic.Kept.keep = within("copy", elastic.Kept.keep)
    elastic.Kept.restore = within("restore", elastic.Kept.restore)


if __name__ == "__main__":
    folder, plan = Path(sys.argv.pop(1)), json.loads(sys.argv.pop(1))
    arm(folder, plan)
    runpy.run_module("train", run_name="__main__", alter_sys=True)
