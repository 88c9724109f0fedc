"""What the verbs share."""

import time

import pytest

from modalign.cli.console import stages


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
