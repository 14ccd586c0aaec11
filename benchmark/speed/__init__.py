"""Scripts that time us against peers."""
