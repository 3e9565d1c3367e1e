"""The registry: what is declared, who may change it, and who may call it.

``changes`` makes each set of changes one transaction; ``follower`` keeps every replica at the newest
generation, in an immutable ``snapshot``; ``access`` is the one function that decides what a caller sees and
may call; ``code`` and ``history`` fetch what a snapshot does not hold.
"""
