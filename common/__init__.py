"""What two or more of the four packages need."""
