"""Faults made by the real kernel: refused and failing system calls, damaged disks, a stalling file system.

Nothing is mocked. A test writes a small program, runs it in a child under the fault (`child.run`), and looks at what
the child printed. `inside` is what such a program imports; `seccomp` refuses system calls in it; `notify` answers
them one by one from outside; `disk` and `stalling` make files that fail, stop short or never answer.
"""
