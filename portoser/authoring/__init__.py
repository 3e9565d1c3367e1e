"""What authors of tools work with: the check of a folder, the loop around it, templates, stubs, the manifests' schema.

Nothing here needs a server, a database or git. What is said of a folder is what a server would say of it, because the
same reader and the same admission say it; a call takes the same sandbox, validation and powers.
"""
