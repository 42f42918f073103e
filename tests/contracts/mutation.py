"""Breaks the contracts in every small way and looks who notices.

``python tests/contracts/mutation.py [CONTRACT ...]`` prints each mutant that no test kills, and
fails when there is one that is not known to be the same contract. Needs node and contracts/'s
packages; takes half a minute for ReceiptRegistry and half an hour for all.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CARRIED = (
    "twopm_flower",
    "tests",
    "contracts/src",
    "contracts/build.mjs",
    "contracts/package.json",
)
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "--full")
FAILED = 1
"""What pytest returns where a test failed; anything else but 0 is no answer."""
EVM_ONLY = ("-k", "evm and not anvil")
REPLAY = "tests/contracts/test_state_from_logs.py"
KILLERS = {
    "TaskRegistry": (
        ("tests/contracts/test_task_states.py",),
        ("tests/chain/test_task_registry.py",),
        (REPLAY,),
    ),
    "NodeRegistry": (("tests/chain/test_node_registry.py",), (REPLAY,)),
    "DataRegistry": (("tests/conformance/test_data_on_every_chain.py", *EVM_ONLY), (REPLAY,)),
    "ReceiptRegistry": (("tests/contracts/test_receipt_proofs.py",), (REPLAY,)),
}
# The larger of two numbers is the same either way. The other needs a block at a chosen second:
# contracts/test/Statements.t.sol has it.
KNOWN = (
    "task.minContributors >= task.quorum ?",
    "block.timestamp >= deadline",
)
GUARD = re.compile(r" +if \(([^{;]*?)\) (?:revert [^;]*;|\{\s*revert [^;]*;\s*\})", re.DOTALL)
DROPPED = (
    re.compile(r"^ +emit [^;]*;", re.MULTILINE),
    re.compile(r"^ +[\w.\[\]]+ \^?= [^;]*;", re.MULTILINE),
    re.compile(r"^ +delete [^;]*;", re.MULTILINE),
)
SWAPPED = {
    " < ": " <= ",
    " <= ": " < ",
    " > ": " >= ",
    " >= ": " > ",
    " ^ ": " & ",
    " + 1": " + 2",
    "++": "",
    "return sealingKeyOf[node] !=": "return sealingKeyOf[node] ==",
    "follows = attempt != 0 && ": "follows = ",
    "supersedes = round != 0 && ": "supersedes = ",
    "round == last && ": "",
    " && attempt > task.lastAttempt": "",
}


@dataclass(frozen=True)
class Mutant:
    """A contract's source with one change."""

    contract: str
    source: str
    change: str


def mutants(contract: str, source: str) -> Iterator[Mutant]:
    """Yield each small change: guards, their clauses, events, assignments, operators."""

    def changed(start: int, end: int, new: str) -> Mutant:
        line = source[source.rfind("\n", 0, start) + 1 : source.find("\n", end)]
        after = source[source.rfind("\n", 0, start) + 1 : start] + new
        what = " ".join((after + source[end : source.find("\n", end)]).split())
        return Mutant(contract, source[:start] + new + source[end:], f"{line.strip()}\n    {what}")

    for guard in GUARD.finditer(source):
        yield changed(*guard.span(), "")
        clauses = re.split(r" (\|\||&&)\s+", guard[1])
        for place in range(0, len(clauses), 2) if len(clauses) > 1 else ():
            rest = [clause for other, clause in enumerate(clauses[::2]) if other != place // 2]
            yield changed(*guard.span(1), f" {clauses[1]} ".join(rest))
    for pattern in DROPPED:
        for found in pattern.finditer(source):
            yield changed(*found.span(), "")
    for old, new in SWAPPED.items():
        for found in re.finditer(re.escape(old), source):
            line = source[source.rfind("\n", 0, found.start()) + 1 : found.end()]
            if not line.strip().startswith("//") and "for (" not in line:
                yield changed(*found.span(), new)


def killer(mutant: Mutant, folder: Path) -> str | None:
    """Return who notices: the compiler, a file of tests, or nobody."""
    sources = folder / "contracts" / "src"
    shutil.copytree(ROOT / "contracts" / "src", sources, dirs_exist_ok=True)
    (sources / f"{mutant.contract}.sol").write_text(mutant.source, encoding="utf-8")
    build = ["node", str(folder / "contracts" / "build.mjs")]
    if subprocess.run(build, capture_output=True, check=False).returncode != 0:
        return "the compiler"
    for arguments in KILLERS[mutant.contract]:
        command = [sys.executable, "-m", "pytest", *PYTEST, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        if done.returncode == FAILED:
            return arguments[0]
        if done.returncode != 0:
            # Nothing to run, or nothing that runs, is nobody who notices.
            raise SystemExit(f"pytest {arguments}: {done.returncode}\n{done.stdout.decode()}")
    return None


def main(contracts: list[str]) -> int:
    """Try all mutants of the contracts named, or of all."""
    total, survivors, unknown = 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in CARRIED:
            copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy2
            (folder / path).parent.mkdir(exist_ok=True)
            copy(ROOT / path, folder / path)
        shutil.copy2(ROOT / "pyproject.toml", folder)
        (folder / "contracts" / "node_modules").symlink_to(ROOT / "contracts" / "node_modules")
        for contract in contracts or KILLERS:
            source = (ROOT / "contracts" / "src" / f"{contract}.sol").read_text(encoding="utf-8")
            for mutant in mutants(contract, source):
                total += 1
                if killer(mutant, folder) is None:
                    known = any(known in mutant.change for known in KNOWN)
                    survivors, unknown = survivors + 1, unknown + (not known)
                    sys.stdout.write(f"{contract}{' (known)' * known}: {mutant.change}\n")
                    sys.stdout.flush()
    sys.stdout.write(f"{total} mutants, {total - survivors} killed, {unknown} to look at\n")
    return int(unknown > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
