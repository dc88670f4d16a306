"""What can go wrong while a cluster is built, started or ended.

ClusterError
├── CommandFailed   a program that we called ended badly
├── StartFailed     a process of the cluster did not become ready
└── UnsuitableHost  this machine cannot hold the cluster; the message says what is missing
"""

from collections.abc import Sequence
from shlex import join


class ClusterError(Exception):
    """Any failure of this package, with a sentence that names what to do."""


class CommandFailed(ClusterError):
    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-20:])
        super().__init__(f"`{join(argv)}` ended with {code}. Its last lines:\n{tail}")
        self.argv = tuple(argv)
        self.code = code
        self.output = output


class StartFailed(ClusterError):
    pass


class UnsuitableHost(ClusterError):
    pass
