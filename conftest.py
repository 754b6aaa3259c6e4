"""For every test and every notebook: check shapes at run time, need no network but the machine's own loopback."""

import fcntl
import os
import socket
import struct

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from jaxtyping import install_import_hook

install_import_hook("course_lib", "shape_check.typechecker")


def loopback_works() -> bool:
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
        except OSError:
            return False
    return True


def raise_loopback() -> None:
    """Inside `unshare -n` even 127.0.0.1 is down, over which notebooks talk to their kernels."""
    set_flags, up = 0x8914, 0x1  # SIOCSIFFLAGS and IFF_UP of Linux
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", up))


if not loopback_works():
    raise_loopback()
