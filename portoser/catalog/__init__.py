"""What a tool is.

The values that every other room passes around: what an author declared, the immutable revision that
comes of it, the registered tool, groups, the policy, callers, and the changes that lead from one state
of the registry to the next. Everything here is an immutable value or a pure function of values: no
I/O, no clock, no database, and no import from another room.
"""
