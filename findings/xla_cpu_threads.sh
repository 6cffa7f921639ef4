#!/usr/bin/env bash
# jax 0.10.2: `--xla_cpu_multi_thread_eigen=false` does not keep a matrix product in one thread.
#
# Expected: with that flag in XLA_FLAGS, which by its name and by many notes on the timing of JAX turns threads off
# within an operation, a chain of products, where each needs the one before, takes the time of one thread.
# Seen: two threads of XLA share the work evenly, with the flag as without it. Timings "on one core" then depend on
# what else runs. The process's affinity (`taskset -c 0`) does keep it in one.
#
# Last run: 2026-11-29, Python 3.11.7, a machine of two cores; of each thread the share of all CPU time, at least 0.1:
#   true: 0.47 0.47
#   false: 0.47 0.46
#   false, taskset -c 0: 1.00
set -euo pipefail
[ "$(nproc)" -ge 2 ] || { echo "This needs two cores."; exit 77; }
command -v taskset > /dev/null || { echo "This needs taskset (util-linux)."; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install jax==0.10.2 jaxlib==0.10.2
cat > "$folder/shares.py" <<'PYTHON_CODE'
import glob

import jax
import jax.numpy as jnp


@jax.jit
def chain(a, b):
    for _ in range(40):
        a = jnp.tanh(a @ b)
    return a


def ticks():
    """CPU time of each thread, from /proc (see proc(5))."""
    fields = {path: open(path).read().rsplit(")", 1)[1].split() for path in glob.glob("/proc/self/task/*/stat")}
    return {path: int(field[11]) + int(field[12]) for path, field in fields.items()}


x = jnp.ones((512, 512)) / 512
jax.block_until_ready(chain(x, x))
before = ticks()
for _ in range(30):
    jax.block_until_ready(chain(x, x))
spent = [now - before.get(path, 0) for path, now in ticks().items()]
shares = sorted((time / sum(spent) for time in spent if time > 0.1 * sum(spent)), reverse=True)
print(*(f"{share:.2f}" for share in shares))
PYTHON_CODE
run() {
  XLA_FLAGS=--xla_cpu_multi_thread_eigen=$1 "${@:2}" "$folder/venv/bin/python" "$folder/shares.py"
}
with=$(run true env)
without=$(run false env)
bound=$(run false taskset -c 0)
printf 'true: %s\nfalse: %s\nfalse, taskset -c 0: %s\n' "$with" "$without" "$bound"
[ "$(wc -w <<< "$without")" -ge 2 ] && [ "$(wc -w <<< "$bound")" -eq 1 ] || { echo "The behaviour has changed."; exit 1; }
