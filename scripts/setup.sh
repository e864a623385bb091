#!/usr/bin/env bash
# Make .venv ready: torch, ROS 2, this package with its messages, and the tools of the tests.
# Safe to run at any time. It returns at once when nothing it depends on has changed, and
# starts over when an earlier run was interrupted. PYTHON=/path/to/python3 chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
ready=$venv/.ready # written last: what the virtual environment was made from
# The release that the figures in docs/results.md were made with. pip's own configuration
# decides between its CPU and its CUDA build.
torch=torch==2.13.0

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

is_usable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10}; do
    if is_usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.10 to 3.13 found as ${PYTHON:-python3}. Install one, or name it: make PYTHON=/path/to/python3.12 ..."
}

# All that .venv follows from. Python modules, config/ and launch/ are not in it: the package
# is installed editable, so that editing them needs nothing here.
describe() {
  pwd
  "$1" -V
  sha256sum scripts/setup.sh setup.py pyproject.toml package.xml CMakeLists.txt resource/* msg/* srv/* action/*
  ls smwm_ros/nodes/*_node.py
}

# Debian's names of what the interpreter given cannot find.
missing_packages() {
  local version
  version=$("$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$version-venv"
  "$1" -c 'import sys, sysconfig, pathlib
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || echo "$version-dev"
  command -v cc >/dev/null && command -v c++ >/dev/null || echo g++
  # MuJoCo draws the simulated camera through them.
  "$1" -c 'import ctypes; ctypes.CDLL("libEGL.so.1"); ctypes.CDLL("libGL.so.1")' 2>/dev/null ||
    echo libegl1 libgl1 libgl1-mesa-dri
}

install_packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "missing: $*. Install them and run this again: sudo apt-get install -y $*"
  fi
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } </dev/null >/dev/null ||
    fail "apt-get could not install: $*"
}

pip_install() {
  $venv/bin/python -m pip install -qq --disable-pip-version-check "$@" </dev/null ||
    fail "pip failed; its message is above. Run this again when the cause is gone."
}

can_render() { MUJOCO_GL=egl $venv/bin/python -c 'import mujoco; mujoco.GLContext(8, 8).free()' 2>/dev/null; }

mkdir -p build
exec 9>build/setup.lock
flock 9 # two make commands at once: the second waits, then finds everything done

made_from=$(cat $ready 2>/dev/null || true)
# The environment's own interpreter where there is one: PATH may have changed since.
if [ -z "${PYTHON:-}" ] && [ "$(head -n 1 <<<"$made_from")" = "$PWD" ] && is_usable $venv/bin/python; then
  python=$venv/bin/python
else
  python=$(find_python)
fi
key=$(describe "$python")
[ "$key" != "$made_from" ] || exit 0

read -ra missing <<<"$(missing_packages "$python" | xargs)"
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"

# Whole, in the same place and of the same Python: pip brings it up to date. Else from scratch.
if [ "$(head -n 2 <<<"$made_from")" != "$(head -n 2 <<<"$key")" ]; then
  say "making $venv with $("$python" -V)"
  "$python" -m venv --clear $venv
fi
rm -f $ready
say "installing $torch"
pip_install "$torch"
say "installing ROS 2 and smwm_ros, and compiling its messages"
pip_install "$torch" --editable '.[dev]'

# libEGL may be there without a driver behind it.
can_render || install_packages libegl1 libgl1 libgl1-mesa-dri
can_render || fail "MuJoCo still cannot draw through EGL: is the graphics driver's EGL library installed?"

echo "$key" >$ready
say "ready"
