"""Runs tool code outside the server process.

Tool code is someone else's code: it is never imported here, not even to read a signature. The server
talks to worker processes over socket pairs, in length-prefixed msgpack frames; whatever a worker does,
it costs that worker and never the server.
"""
