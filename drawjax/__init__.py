"""DRAW (Gregor et al. 2015) in JAX: a recurrent network that draws images with attention."""
