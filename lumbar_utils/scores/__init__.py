"""What label maps are worth: metrics, statistics, and the paper's numbers and claims."""
