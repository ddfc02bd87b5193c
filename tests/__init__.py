"""The tests; a package, since a dependency of the tests installs one of this name."""
