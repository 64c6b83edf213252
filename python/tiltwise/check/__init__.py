"""What is wrong with a data set: findings with codes, from metadata, images, and a reference map."""
