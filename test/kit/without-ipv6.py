"""Runs a program as on a kernel without IPv6: a socket of that family cannot be made (seccomp(2))."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16
AF_INET6, EAFNOSUPPORT = 10, 97
SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]

instructions = [
    (LOAD_WORD, 0, 0, NUMBER_AT),
    (JUMP_IF_EQUAL, 0, 3, SOCKET),
    (LOAD_WORD, 0, 0, FIRST_ARGUMENT_AT),
    (JUMP_IF_EQUAL, 0, 1, AF_INET6),
    (RETURN, 0, 0, ERRNO | EAFNOSUPPORT),
    (RETURN, 0, 0, ALLOW),
]
code = b"".join(struct.pack("HBBI", *each) for each in instructions)
held = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(held))

libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
    sys.exit("no_new_privs is refused")
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
