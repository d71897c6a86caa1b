"""Faces for other packages; nothing of ours depends on them."""
