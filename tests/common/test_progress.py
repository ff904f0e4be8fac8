"""Lines while something long is worked on, and none once it is over."""

import threading
import time

from common.progress import Progress, at


def test_it_says_what_is_worked_on_until_that_is_over(capsys):
    with Progress("runs/x", seconds=0.02):
        at("planning")
        deadline, said = time.monotonic() + 5, ""
        while "planning" not in said and time.monotonic() < deadline:
            time.sleep(0.02)
            said += capsys.readouterr().err
    assert "runs/x: at work for 0 s, planning" in said
    capsys.readouterr()
    time.sleep(0.1)
    assert not capsys.readouterr().err
    before = threading.active_count()
    with Progress("other ranks", active=False, seconds=0.01):
        assert threading.active_count() == before
        time.sleep(0.05)
    assert not capsys.readouterr().err
