#!/usr/bin/env bash
# Sets up a virtual environment beside this file, then runs the demo or the tests.
#
#   ./run.sh [OPTIONS OF twopm demo]     the whole story on this machine (try --help)
#   ./run.sh test [--all | --full] [OPTIONS OF pytest]
#   ./run.sh setup                       set up and stop
#
# Needs Python 3.11 or newer with pip, nothing else. PYTHON=... chooses the interpreter,
# TWOPM_VENV=... the environment's folder. What pip has to know (mirrors, the CPU-only index
# of PyTorch) is set as usual, in pip's own configuration or PIP_* variables.
set -euo pipefail

# Hundreds of processes import the same packages: without stored bytecode each compiles them anew.
unset PYTHONDONTWRITEBYTECODE

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
venv=${TWOPM_VENV:-$root/.venv}
torch="torch==2.13.0"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "run.sh: $*"
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' \
                >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with the venv module was found. Install one" \
        "(Debian: apt install python3-venv), or name it: PYTHON=/path/to/python ./run.sh"
}

fingerprint() {
    # What was installed: the interpreter, the pins, the package's metadata and the extras.
    { "$venv/bin/python" --version; printf '%s\n' "$root" "$1"
        cat -- "$root/constraints.txt" "$root/pyproject.toml"; } | cksum
}

# Python compiles what it imports; compiling the whole of every package takes most of a minute.
pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-compile "$@"
}

stamp() { printf '%s/.twopm-installed-%s' "$venv" "${1:-base}"; }

installed() {
    local file
    file=$(stamp "$1")
    [ -f "$file" ] && [ "$(cat -- "$file")" = "$(fingerprint "$1")" ]
}

setup() {
    local extras=$1
    if [ ! -x "$venv/bin/python" ]; then
        local python
        python=$(find_python)
        say "[1/3] Making a virtual environment with $("$python" --version) in $venv"
        "$python" -m venv "$venv" ||
            fail "the virtual environment could not be made; on Debian and Ubuntu: apt install python3-venv"
    fi
    if installed "$extras" || { [ "$extras" != test,lint ] && installed test,lint; }; then
        return
    fi
    if ! "$venv/bin/python" -c 'import importlib.metadata as m, sys
sys.exit(m.version("torch").split("+")[0] != sys.argv[1])' "${torch#*==}" 2>/dev/null; then
        say "[2/3] Installing $torch: 200 MB to download as the CPU build, up to 3 GB where the"
        say "      package index offers the CUDA build only (docs/development.md: how to avoid it)"
        pip_install "$torch" || fail "pip could not install $torch; its words are above"
    fi
    say "[3/3] Installing twopm-flower and what it needs, in the versions of constraints.txt"
    pip_install --constraint "$root/constraints.txt" --editable "$root${extras:+[$extras]}" ||
        fail "pip could not install the package; its words are above"
    fingerprint "$extras" >"$(stamp "$extras")"
}

use_data_beside_checkout() {
    local folder
    if [ -z "${TWOPM_DATA_DIR:-}" ]; then
        for folder in "$root/shared/data/student" "$root/../shared/data/student"; do
            if [ -f "$folder/student-mat.csv" ]; then
                TWOPM_DATA_DIR=$(cd -- "$folder" && pwd)
                export TWOPM_DATA_DIR
                return
            fi
        done
    fi
}

use_data_beside_checkout
case ${1:-} in
test)
    shift
    setup test,lint
    cd -- "$root"
    # One worker per core; a file's tests stay together, for they share chains and runs, and
    # files are begun in the order of tests/conftest.py: the longest first.
    exec "$venv/bin/python" -m pytest --numprocesses auto --dist loadfile \
        --no-loadscope-reorder "$@"
    ;;
setup)
    setup "${2:-}"
    ;;
*)
    case " $* " in
    *" --chain solana "* | *" --chain=solana "*) setup solana ;;
    *) setup "" ;;
    esac
    exec "$venv/bin/twopm" demo "$@"
    ;;
esac
