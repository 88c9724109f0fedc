"""What the verbs share."""

import signal
import sys
import time

import pytest

from modalign.cli.console import progress, remembered_interrupts, stages


def test_quick_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with stages("register", patience=3600) as tell:
        tell("read")
        tell("write")
    assert capsys.readouterr().err == ""


def test_slow_work_tells_the_stage_at_hand_and_those_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    told = ""
    with stages("register", patience=0.01) as tell:
        tell("read")
        for _ in range(1000):
            told += capsys.readouterr().err
            if told:
                break
            time.sleep(0.01)
        tell("write")
    assert told + capsys.readouterr().err == "register: read ...\nregister: write ...\n"


def test_an_interrupt_that_python_loses_is_raised_again() -> None:
    class Loses:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    lost: list[object] = []
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with remembered_interrupts() as check:
        check()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "unraisablehook", lost.append)
            made = Loses()
            del made
        assert len(lost) == 1
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.signal(signal.SIGINT, signal.SIG_IGN) is signal.default_int_handler
    with remembered_interrupts() as check:
        signal.raise_signal(signal.SIGINT)
        check()
    signal.signal(signal.SIGINT, found)


def test_progress_of_a_second_phase_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train") as advance:
        for step in range(101):
            advance(step / 100, f"step {step}")
        for case in range(1, 71):
            advance(case / 70, "calibrating")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "train   0% step 0"
    assert sum("calibrating" in line for line in told) == 11
    assert len(told) == 22
