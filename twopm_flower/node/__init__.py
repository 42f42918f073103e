"""A node's and a coordinator's own side: set-up, ceremonies, runs, and what is wrong with them."""
