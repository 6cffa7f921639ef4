"""The former name of `umt_jax.blend`, which keeps working for one release."""

import runpy

from umt_jax import command_line

if __name__ == "__main__":
    command_line.say(
        "experiments.blend is now umt_jax.blend: python -m umt_jax.blend. This name goes with the "
        "next release.",
        error=True,
    )
    runpy.run_module("umt_jax.blend", run_name="__main__", alter_sys=True)
