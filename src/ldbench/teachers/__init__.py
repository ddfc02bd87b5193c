"""Teachers: frozen feature extractors that return target features at the positions of a grid."""
