#!/usr/bin/env bash
# Resolve requirements/*.in into the locks that `make setup` and the containerfile install with `--no-deps`, and
# requirements/environments/*.in into those of `make env`.
# Needs uv and PyPI only: torch is resolved by its plain version and written as `+cpu` for the CPU locks, so the
# machine that locks need not reach PyTorch's own index.
set -euo pipefail
cd "$(dirname "$0")"
uv="${UV:-uv}"

compile() { # compile PYTHON EXCLUDES INPUT OUTPUT [ARG...]
  local python=$1 excludes=$2 input=$3 output=$4
  shift 4
  "$uv" pip compile --quiet --no-header --no-annotate --python-version "$python" \
    --python-platform x86_64-manylinux_2_28 --excludes "$excludes" "$input" --output-file "$output.tmp" "$@"
  { echo "# Resolved from $input by \`make lock\`; do not edit."; cat "$output.tmp"; } >"$output"
  rm "$output.tmp"
}

compile 3.11 excludes-cpu.txt cpu.in cpu.lock --override overrides-cpu.txt --upgrade
compile 3.11 excludes-cpu.txt dev.in dev.lock --override overrides-cpu.txt --override overrides-dev.txt --constraint cpu.lock
sed -i 's/^torch==\([0-9.]*\)$/torch==\1+cpu/' cpu.lock dev.lock
compile 3.12 excludes-gpu.txt gpu.in gpu.lock --upgrade

# What crosses between the processes of two environments has one version in all: the driver's lock holds it there.
shared() { # shared LOCK
  grep -E '^(ray|pydantic|pydantic-core|numpy|pandas|pyarrow|boto3|botocore|rich|jinja2|psutil|setuptools|fsspec|protobuf|msgpack)==' "$1"
}

# An environment is resolved from NAME.in, or from NAME-cpu.in and NAME-gpu.in where its tool has two names.
names() { ls environments/*.lock environments/*-cpu.in environments/*.in | xargs -n1 basename | sed -E 's/(-(cpu|gpu))?\.(in|lock)$//' | sort -u | grep -v '^shared$'; }
input() { [ -e "environments/$1-$2.in" ] && echo "environments/$1-$2.in" || echo "environments/$1.in"; } # input NAME ACCELERATOR

# A tool that pins what others need otherwise: NAME-overrides.txt has versions that replace its own (then so do the shared
# ones), NAME-excludes.txt what it can do without, NAME-includes.txt what it needs of the accelerator's excludes.
lines() { if [ -e "$1" ]; then grep -v '^#' "$1"; fi; } # lines FILE
excludes() { grep -vxFf <(lines "environments/$1-includes.txt") "excludes-$2.txt"; lines "environments/$1-excludes.txt"; } # excludes NAME ACCELERATOR
held() { [ -e "environments/$1-overrides.txt" ] && echo "--override environments/$1-overrides.txt --override" || echo --constraint; } # held NAME

for name in $(names); do
  compile 3.11 <(excludes "$name" cpu) "$(input "$name" cpu)" "environments/$name-cpu.lock" --override overrides-cpu.txt $(held "$name") <(shared cpu.lock) --upgrade
  sed -i 's/^torch==\([0-9.]*\)$/torch==\1+cpu/' "environments/$name-cpu.lock"
  compile 3.12 <(excludes "$name" gpu) "$(input "$name" gpu)" "environments/$name-gpu.lock" $(held "$name") <(shared gpu.lock) --upgrade
done
