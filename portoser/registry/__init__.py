"""The registry: changes become one transaction each, every replica follows in an immutable snapshot, and one function decides who may call what."""
