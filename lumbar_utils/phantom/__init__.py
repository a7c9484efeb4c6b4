"""The simulator of lumbar MRI that stands in for patients."""
