"""The linker makes programs that load, always the same bytes, and refuses what cannot load."""

import importlib.util
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from solana_machine import PROGRAM
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction

FOLDER = Path(__file__).parents[2] / "contracts" / "solana"
needs_clang = pytest.mark.skipif(
    shutil.which("clang-14") is None, reason="clang-14 is not installed: apt-get install clang-14"
)


def load_linker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbpf_link", FOLDER / "link.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sbpf_link"] = module
    spec.loader.exec_module(module)
    return module


LINKER = load_linker()


def compiled(folder: Path, **sources: str) -> list[object]:
    """Compile C sources and read the objects, in the order given."""
    objects = []
    for name, text in sources.items():
        source = folder / f"{name}.c"
        source.write_text(text)
        target = source.with_suffix(".o")
        command = ["clang-14", "-target", "bpfel", "-mcpu=v1", "-O1", "-fno-builtin", "-c"]
        subprocess.run([*command, str(source), "-o", str(target)], check=True)
        objects.append(LINKER.read_object(name, target.read_bytes()))
    return objects


def result_of(program: bytes, data: bytes = b"") -> str:
    """Return what a program's entry point returned, as the runtime tells it."""
    svm, where, payer = LiteSVM(), Pubkey(b"p" * 32), Keypair()
    svm.add_program(where, program)
    svm.airdrop(payer.pubkey(), 10**9)
    recent = svm.latest_blockhash()
    message = Message.new_with_blockhash([Instruction(where, data, [])], payer.pubkey(), recent)
    result = svm.send_transaction(Transaction([payer], message, recent))
    return str(result.err().err) if hasattr(result, "err") else "success"


@needs_clang
def test_the_packaged_program_is_what_its_sources_give() -> None:
    done = subprocess.run(
        [sys.executable, "build.py", "--check"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "number"),
    [("sol_log_", 0x207559BD), ("abort", 0xB6FC1A11), ("sol_panic_", 0x686093BB)],
)
def test_system_calls_have_the_numbers_that_the_runtime_knows(name: str, number: int) -> None:
    assert LINKER.murmur3(name.encode()) == number


def test_the_program_has_two_segments_and_is_version_three() -> None:
    assert PROGRAM[:4] == b"\x7fELF"
    assert struct.unpack_from("<HH", PROGRAM, 16) == (3, 247)
    entry, version, count = (
        struct.unpack_from("<Q", PROGRAM, 24)[0],
        struct.unpack_from("<I", PROGRAM, 48)[0],
        struct.unpack_from("<H", PROGRAM, 56)[0],
    )
    assert (version, count) == (3, 2)
    rodata, code = (struct.unpack_from("<IIQQQQQQ", PROGRAM, 64 + 56 * i) for i in (0, 1))
    assert rodata[:5] == (1, 4, 64 + 2 * 56, 0, 0)
    assert code[:5] == (1, 1, rodata[2] + rodata[5], 1 << 32, 1 << 32)
    assert code[3] <= entry < code[3] + code[5]
    names_index, sections = (
        struct.unpack_from("<H", PROGRAM, 62)[0],
        struct.unpack_from("<H", PROGRAM, 60)[0],
    )
    assert names_index < sections


MAIN = "extern unsigned long f(unsigned long); extern const unsigned long table[];\n"


@needs_clang
def test_calls_and_tables_reach_across_objects(tmp_path: Path) -> None:
    objects = compiled(
        tmp_path,
        one=MAIN + "unsigned long entrypoint(unsigned char *in) { return f(in[8]) + table[1]; }",
        two="static unsigned long __attribute__((noinline)) twice(unsigned long x)"
        " { return x * 2 + 6000; }\n"
        "const unsigned long table[2] = {7, 30};\n"
        "unsigned long f(unsigned long x) { return twice(twice(x)) - 6000; }",
    )
    # Without accounts, in[8] is the first byte of the length of the data.
    assert "12030" in result_of(LINKER.link(objects))
    assert "12038" in result_of(LINKER.link(objects), b"ab")
    assert "12038" in result_of(LINKER.link(list(reversed(objects))), b"ab")


@needs_clang
def test_each_function_has_a_stack_of_its_own(tmp_path: Path) -> None:
    text = """
    typedef unsigned long u64;
    u64 __attribute__((noinline)) depth(u64 n) {
        volatile u64 room[40];
        for (u64 i = 0; i < 40; ++i) room[i] = n;
        u64 below = n ? depth(n - 1) : 0;
        for (u64 i = 0; i < 40; ++i) if (room[i] != n) return 9999;
        return below + 1;
    }
    u64 entrypoint(unsigned char *in) { return 6000 + depth(in[8]); }
    """
    assert "6006" in result_of(LINKER.link(compiled(tmp_path, main=text)), b"12345")


@needs_clang
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("int f(void) { return 1; }", "no object defines the function entrypoint"),
        ("int n = 3; int entrypoint(void) { return n++; }", "writable"),
        ("int n; int entrypoint(void) { return n++; }", "writable"),
        (
            "int f(void); int (*const t[2])(void) = {f, f}; int entrypoint(void) { return 0; }",
            "pointer",
        ),
        ("int f(void); void *entrypoint(void) { return f; }", "used as data"),
        ("extern int x; int entrypoint(void) { return x; }", "used as data"),
    ],
)
def test_what_a_program_cannot_have_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(LINKER.LinkError, match=reason):
        LINKER.link(compiled(tmp_path, main=text))


@needs_clang
def test_a_name_defined_twice_is_refused(tmp_path: Path) -> None:
    text = "int entrypoint(void) { return 0; }"
    with pytest.raises(LINKER.LinkError, match="entrypoint is defined twice"):
        LINKER.link(compiled(tmp_path, one=text, two=text))


def test_what_is_no_object_is_refused() -> None:
    for data in (b"", b"\x7fELF", b"MZ" + bytes(200), PROGRAM):
        with pytest.raises(LINKER.LinkError):
            LINKER.read_object("x.o", data)
