"""The packages that tools require: resolved once, installed once for each distinct set, read-only, shared.

A set of requirements becomes a *lock* (`locks`): every package with its version and hashes, wheels only, found by
uv (`uv`) in the indexes that the operator has configured (`indexes`). A lock is kept by the registry, so that a set
means the same on every replica and after every restart until somebody changes it. A lock becomes a *folder*
(`folders`): named by its content, made aside and then renamed, never changed afterwards. Both happen when a revision is
admitted (`environments`), never in a call; where a folder is missing later, on a new replica or a new disk, it is
made again from the lock in the background, and calls say so meanwhile. `nurseries` keeps a zygote for each environment
that is in use.

No package's code ever runs here: uv unpacks wheels and compiles them to bytecode, and builds nothing.
"""
