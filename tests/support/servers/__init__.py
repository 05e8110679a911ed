"""Real servers on loopback: nginx where it is installed, and one of ours that does wrong as told."""
