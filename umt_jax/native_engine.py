"""To come."""


def library():
    raise OSError("not there yet")


class NativeEngine: ...
