"""Signals between steps: held back, asked for, and never lost."""

from __future__ import annotations

import os
import signal

import pytest

from labelloop.interrupts import STOPS, interrupts_held

SIGNALS = (signal.SIGINT, *STOPS)


def steps(number: signal.Signals, *, ask_last: bool) -> list[bool]:
    """What is heard of a signal during two steps, before and after which it is asked for."""
    heard = []
    with interrupts_held() as interrupted:
        heard.append(interrupted())
        os.kill(os.getpid(), number)
        if ask_last:
            heard.append(interrupted())
            raise KeyboardInterrupt(heard)
        heard.append(False)
    return heard


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_held_back_until_somebody_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as raised:
        steps(number, ask_last=True)
    assert raised.value.args == ([False, True],)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_after_the_last_question_is_not_lost(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        steps(number, ask_last=False)
    assert raised.value.args == ()


def twice() -> None:
    with interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second was held back")


def test_a_second_ctrl_c_is_not_held_back() -> None:
    with pytest.raises(KeyboardInterrupt):
        twice()
