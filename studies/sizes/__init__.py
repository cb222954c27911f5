"""What trained networks are worth on images larger than those of their training."""
