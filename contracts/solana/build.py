"""Builds the Solana program from its C sources, byte for byte the same wherever it is built.

Needs ``clang-14`` (Debian and Ubuntu: ``apt-get install clang-14``) and nothing else.
``build.py`` writes the program into the package; ``build.py --check`` says whether it differs.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from link import link, read_object

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / "twopm_flower" / "chain" / "artifacts" / "solana" / "program.so"
COMPILER = "clang-14"
# Version 1 of the instruction set: no 32-bit jumps, which sBPF encodes in another way.
FLAGS = (
    "-target", "bpfel", "-mcpu=v1", "-O2", "-fno-unroll-loops", "-std=c11", "-ffreestanding",
    "-fno-builtin", "-fno-ident", "-Wall", "-Wextra", "-Wconversion", "-Werror",
)  # fmt: skip


def build(compiler: str = COMPILER) -> bytes:
    """Return the program.

    Raises
    ------
    FileNotFoundError
        The compiler is not installed.
    subprocess.CalledProcessError
        The compiler refused a file; what it says goes to the standard error stream.
    """
    path = shutil.which(compiler)
    if path is None:
        raise FileNotFoundError(f"{compiler} is not installed: apt-get install {compiler}")
    sources = sorted((HERE / "src").glob("*.c"))
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sources:
            target = Path(folder) / f"{source.stem}.o"
            # A relative name and folder: neither may leave a trace in the program.
            subprocess.run(  # noqa: S603 - the pinned compiler over our own sources
                [path, *FLAGS, "-c", source.name, "-o", str(target)], cwd=source.parent, check=True
            )
            objects.append(read_object(source.name, target.read_bytes()))
    return link(objects)


def main() -> int:
    """Write the program, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    try:
        program = build()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if not check:
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        PROGRAM.write_bytes(program)
        print(f"{len(program)} bytes")
        return 0
    if PROGRAM.read_bytes() == program:
        return 0
    print(f"{PROGRAM.name} is not what its sources give: run build.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
