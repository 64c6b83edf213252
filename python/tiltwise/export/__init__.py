"""What other programs read: extracted images of particles, and sets in their forms."""
