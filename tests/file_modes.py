"""Commands for which the modes of files count, as for users who are not root."""

import os
import shutil

import pytest


def counting():
    """Returns words before a command; skips where root cannot give up what it may."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything here: setpriv of util-linux is missing")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
