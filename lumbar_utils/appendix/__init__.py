"""Further analyses, shown by the last notebook."""
