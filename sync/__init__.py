"""The reconciler: brings a git-tracked folder of tools into the registry, and keeps it there.

Data passes once, left to right: a source is read, `manifest` turns its files into desired tools or
problems, admission learns their schemas, `plan` compares them with what is registered, `guards` say why a
plan may not be applied, the registry applies what is left in one transaction, and `report` tells of it.
`plan`, `guards` and `report` are pure. Nothing in this package runs or imports tool code itself.
"""
