# Shared by the scripts in tools/: where things are, and how they speak. Sourced, never run.
# shellcheck shell=bash

set -euo pipefail

# The root of the source tree: every script works from there, whatever the caller's folder is.
FERMATA_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What is fetched or built once and may be kept between runs: the model, the Python environment, Bazel's disk cache.
FERMATA_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/fermata
FERMATA_VENV=$FERMATA_CACHE/venv
# Libraries for aarch64, where `tools/setup --cross` has been run.
FERMATA_ARM64=$FERMATA_CACHE/arm64
export FERMATA_ROOT FERMATA_CACHE FERMATA_VENV FERMATA_ARM64
cd "$FERMATA_ROOT"

# Colours only where somebody looks at them.
if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' cyan='' plain=''
fi
readonly bold dim green red cyan plain
: "$dim" "$green" "$cyan"  # for the scripts that source this file

# A heading of one step of work.
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

# Ends the script with one line that says what to do.
die() {
  printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
  exit 1
}

# bazel with the disk cache where FERMATA_CACHE is, which .bazelrc cannot know.
# usage: bazel_cached build|test|run ARG...
bazel_cached() {
  local command=$1
  shift
  bazel "$command" --disk_cache="$FERMATA_CACHE/bazel" "$@"
}
