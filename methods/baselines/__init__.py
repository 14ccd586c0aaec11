"""What the papers, and common sense, compare with."""
