"""The three networks, how they are trained, and what they predict."""
