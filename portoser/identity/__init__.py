"""A credential becomes a caller, here and nowhere else."""
