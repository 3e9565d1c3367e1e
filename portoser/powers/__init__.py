"""What tool code may be handed, on the host's side: each power in a file of its own.

`base` is what a power is and how it asks whether something is granted; `host` is what a call's uses pass before any
power sees them; `room` is the list of the powers that there are; `fakes` answers in their place when examples are run.
A power's code runs in the server and takes what strangers' code hands it: it trusts nothing in it.
"""
