"""Memory that can be handed to another process."""

import ctypes
import fcntl
import os

_F_ADD_SEALS = 1033
_F_SEAL_SHRINK_GROW = 2 | 4
_FLAGS = 1 | 2  # close on exec, sealing allowed
_NUMBERS = {"aarch64": 279, "x86_64": 319}


def sealed_memory(size):
    """A memfd of `size` bytes that can neither shrink nor grow. Python has os.memfd_create only from 3.8 on."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("panoramasdk-tensors", _FLAGS)
    else:
        call = ctypes.CDLL(None, use_errno=True).syscall
        descriptor = call(ctypes.c_long(_NUMBERS[os.uname().machine]), ctypes.c_char_p(b"panoramasdk-tensors"), ctypes.c_uint(_FLAGS))
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "memfd_create")
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _F_SEAL_SHRINK_GROW)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
