"""Runs the worker on the CPU where its arguments say cuda: a slice that a scenario made up cannot compute."""

import runpy
import sys


def on_cpu(arguments: list[str]) -> list[str]:
    """The same arguments with another device."""
    at = arguments.index("--device") + 1
    return [*arguments[:at], "cpu", *arguments[at + 1 :]]


if __name__ == "__main__":
    sys.argv = ["worker_image", *on_cpu(sys.argv[1:])]
    runpy.run_module("worker_image", run_name="__main__", alter_sys=True)
