"""Who did what, from which commit, with what result: redaction, the writer and the queries.

An entry is redacted before it comes here, is durable before the client sees the result it speaks of, and
is never changed afterwards.
"""
