"""What runs inside a worker process.

Only these modules, ``portoser.runtime.protocol``, ``portoser.runtime.confine`` and ``portoser.tool`` are there beside
the tool's own code. A worker is single-threaded: it reads a frame, does what the frame says, answers, and
reads the next. Nothing here defends itself against the tool's code, which shares the process and may do what
it likes to it: what must hold is enforced by the server and by the kernel.
"""
