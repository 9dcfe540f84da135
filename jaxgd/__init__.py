"""jaxgd: gradient descent that can be trusted, at the speed of the machine."""
