"""What the made-up app of ``twopm bench round --deployed`` submits to Flower."""
