"""What keeps tool code away from the machine: namespaces, Landlock, seccomp, a user id for each worker.

Each layer is a module that knows one mechanism of Linux and speaks to the kernel by ctypes; ``layers`` tries which of
them hold here, and ``enclosure`` puts them together for a zygote and its workers. A step that fails raises OSError, and
whoever takes it must end: nothing here goes on with less than it was asked for.
"""
