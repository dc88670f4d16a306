"""The endpoint picker's messages, made of their .proto file; `python -m tests.generated_messages DIR` writes them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = "gateway/endpoint_picker"
SOURCE = "ext_proc.proto"


def messages(folder: Path) -> dict[str, str]:
    """File name → text, of everything that the compiler makes of the source in `folder`."""
    with tempfile.TemporaryDirectory() as out:
        flags = [f"-I{folder}", f"--python_out={out}", f"--pyi_out={out}", str(folder / SOURCE)]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *flags], check=True)
        return {path.name: path.read_text() for path in sorted(Path(out).iterdir())}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for name, made in messages(target).items():
        (target / name).write_text(made)
