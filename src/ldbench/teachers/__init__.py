"""Teachers: frozen views of images that give target features at the places of a grid."""
