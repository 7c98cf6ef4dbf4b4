#!/bin/sh
# Runs all tests on every Python 3.11 - 3.13 that is installed here, each in an environment of its own.
# Looks for python3.X commands, then where pyenv and uv keep theirs. Called by `make test-all`.
set -u
make=${MAKE:-make}

works() { # path, minor version: does it run, is it that version, can it make an environment?
  "$1" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, $2))" >/dev/null 2>&1
}

candidates() { # minor version: one path per line, best first
  command -v "python3.$1"
  [ -n "${PYTHON:-}" ] && command -v "$PYTHON"
  root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}
  ls -d "$root"/versions/3."$1".*/bin/python3."$1" 2>/dev/null | sort -rV
  command -v uv >/dev/null 2>&1 && uv python find --no-python-downloads "3.$1" 2>/dev/null
  for folder in "$HOME"/.asdf/installs/python/3."$1".* "$HOME"/.local/share/mise/installs/python/3."$1"; do
    echo "$folder/bin/python3.$1"
  done
}

find_python() {
  candidates "$1" | while IFS= read -r path; do
    if works "$path" "$1"; then "$path" -c 'import sys; print(sys.executable)'; break; fi
  done
}

found= missing= report= code=0
for minor in 11 12 13; do
  python=$(find_python "$minor")
  if [ -z "$python" ]; then
    missing="$missing 3.$minor"; continue
  fi
  found="$found 3.$minor"
  echo "==> Python 3.$minor: $("$python" -V 2>&1), $python"
  if "$make" --no-print-directory test VENV=".venv-3.$minor" PYTHON="$python" ARGS="${ARGS:-}"; then
    report="$report 3.$minor=passed"
  else
    report="$report 3.$minor=FAILED"; code=1
  fi
done
echo
echo "found:${found:- none}   not found:${missing:- none}"
echo "result:${report:- nothing ran}"
[ -n "$found" ] || code=1
exit $code
