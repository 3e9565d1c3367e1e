"""The migrations of the registry's tables, run by :mod:`portoser.store.migrate`."""
