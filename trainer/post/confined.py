"""The inside of trainer.post.sandbox: give up what can be given up, run a program and its tests, then say the word.

Started by path in an isolated interpreter: it imports the standard library alone. The job comes as JSON on standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys

# The system calls that are left, by name with their numbers on (x86_64, aarch64); -1 where there is none.
# To read, compute, wait and end: nothing that writes a file, makes a process or a thread, signals, or opens a socket.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1), "poll": (7, -1),
    "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66),
    "access": (21, -1), "select": (23, -1), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233),
    "nanosleep": (35, 101), "getitimer": (36, 102), "alarm": (37, -1), "setitimer": (38, 103), "getpid": (39, 172),
    "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17), "readlink": (89, -1), "gettimeofday": (96, 169),
    "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174),
    "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132),
    "gettid": (186, 178), "time": (201, -1), "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "exit_group": (231, 94), "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72),
    "ppoll": (271, 73), "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293),
    "faccessat2": (439, 439),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E, 257), "aarch64": (1, 0xC00000B7, 56)}  # column, AUDIT_ARCH, openat
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_LOAD, _EQUALS, _ANY_BIT, _RETURN = (
    0x20,
    0x15,
    0x45,
    0x06,
)  # BPF: a word of the call's data into the register, two tests, an end
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050001, 0x7FFF0000  # the process; the call, with EPERM; none


def filter_program(machine: str) -> bytes:
    """The seccomp filter: `openat` to read and the calls allowed; all others fail. KeyError for another machine."""
    column, architecture, openat = _MACHINES[machine]
    steps = [(_LOAD, 0, 0, 4), (_EQUALS, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_EQUALS, 0, 4, openat), (_LOAD, 0, 0, 32), (_ANY_BIT, 0, 1, _WRITES)]  # 32: the third argument
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    for numbers in _ALLOWED.values():
        if numbers[column] >= 0:
            steps += [(_EQUALS, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def confine(seconds: int, memory: int, output: int) -> None:
    """Set the limits, then give up system calls. Raises OSError or KeyError where this machine cannot."""
    limits = {"CPU": (seconds, seconds + 1), "AS": (memory, memory), "FSIZE": (output, output), "CORE": (0, 0), "NPROC": (0, 0)}
    for name, bounds in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), bounds)
    code = filter_program(platform.machine())
    libc, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Run the job; the word is written only after the tests, so that a program that ends early has not passed."""
    job = json.load(sys.stdin)
    sys.stdin.close()
    try:
        confine(job["seconds"], job["memory"], job["output"])
    except (OSError, KeyError) as error:
        sys.stdout.write(f"unconfined {job['word']} {error}")
        return
    job_word = job.pop("word")
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(job["program"], "program", "exec"), space)
    exec(compile(job["tests"], "tests", "exec"), space)
    sys.stdout.write(f"\n{job_word}")


if __name__ == "__main__":
    main()
