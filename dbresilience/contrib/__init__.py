"""Optional faces: nothing of the backend depends on what is in here."""
