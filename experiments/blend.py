"""The former name of `umt_jax.blend`, which keeps working for one release."""

import runpy
import sys

if __name__ == "__main__":
    print(
        "experiments.blend is now umt_jax.blend: python -m umt_jax.blend. This name goes with the "
        "next release.",
        file=sys.stderr,
    )
    runpy.run_module("umt_jax.blend", run_name="__main__", alter_sys=True)
