"""Which conventions the images agree with: a reference at the stated poses, compared under every alternative."""
