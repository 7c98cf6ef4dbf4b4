"""What the workers of the pools' tests run."""

import os
import signal
import sys
import time


def echo(value):
    return value


def add(a, b=1):
    return a + b


def pid():
    return os.getpid()


def sleep(seconds):
    time.sleep(seconds)
    return seconds
