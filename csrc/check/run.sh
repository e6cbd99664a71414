#!/bin/bash
# Compiles kernels_check with AddressSanitizer and UBSan into a temporary folder and runs it: some two minutes.
#
#   csrc/check/run.sh [configurations = 300] [seed = 1] [first configuration = 0]
set -euo pipefail
csrc=$(cd "$(dirname "$0")/.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
flags=(-std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -ffp-contract=fast
  -Wall -Wextra -Wno-psabi -Wno-ignored-attributes -Wno-maybe-uninitialized)

jobs=()
compile() {
  "${CXX:-g++}" "${flags[@]}" "${@:2}" -c "$csrc/$1.cpp" -o "$build/$(basename "$1").o" &
  jobs+=($!)
}
compile check/kernels_check -O2  # the plain loops take most of the time
compile kernels_baseline
if [ "$(uname -m)" = x86_64 ]; then
  compile kernels_avx2 -mavx2 -mfma
  compile kernels_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma
fi
for job in "${jobs[@]}"; do wait "$job"; done
"${CXX:-g++}" "${flags[@]}" "$build"/*.o -o "$build/kernels_check"
"$build/kernels_check" "$@"
