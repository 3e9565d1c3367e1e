"""What tool code may be handed, on the host's side: each power and its policy."""
