#!/usr/bin/env bash
# numpy 2.4.6: a broken header of an .npy file can raise tokenize.TokenError, where ValueError is documented.
#
# Expected: `numpy.lib.format.read_array_header_1_0` ("Raises ValueError: if the data is invalid") and
# `numpy.load` raise ValueError for a header whose text is broken; callers that check files catch it.
# Seen: a header text with a bracket too many or too few raises tokenize.TokenError, which is neither a
# ValueError nor an OSError; other broken texts raise ValueError. A text that does not parse is tried again
# by way of `tokenize` (for headers that Python 2 wrote), whose error passes through.
#
# Last run: 2026-11-29, Python 3.11.7, from nothing:
#   numpy 2.4.6, header without the last brace: tokenize.TokenError; by numpy.load:
#     tokenize.TokenError
#   numpy 2.4.6, header without a parenthesis: tokenize.TokenError; by numpy.load:
#     tokenize.TokenError
#   numpy 2.4.6, header words: builtins.ValueError; by numpy.load: builtins.ValueError
#   numpy 2.4.6, header without a key: builtins.ValueError; by numpy.load: builtins.ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON_CODE'
import io
import struct

import numpy as np

TEXTS = {
    "without the last brace": "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), ",
    "without a parenthesis": "{'descr': '<f4', 'fortran_order': False, 'shape': (3, }",
    "words": "no header at all",
    "without a key": "{'descr': '<f4', 'shape': (3,), }",
}


def raised(call):
    """Returns the name of the error that a call raises."""
    try:
        call()
    except Exception as error:
        assert not isinstance(error, OSError)
        assert isinstance(error, ValueError) or type(error).__name__ == "TokenError"
        return f"{type(error).__module__}.{type(error).__name__}"
    raise SystemExit("no error")


for name, text in TEXTS.items():
    line = text.ljust(117) + "\n"
    header = struct.pack("<H", len(line)) + line.encode()
    data = np.lib.format.magic(1, 0) + header + bytes(12)
    by_header = raised(lambda: np.lib.format.read_array_header_1_0(io.BytesIO(header)))
    by_load = raised(lambda: np.load(io.BytesIO(data)))
    print(f"numpy {np.__version__}, header {name}: {by_header}; by numpy.load: {by_load}")
    expected = "tokenize.TokenError" if "last brace" in name or "parenthesis" in name else None
    assert by_header == by_load == (expected or "builtins.ValueError")
PYTHON_CODE
