"""What a working benchmark needs, looked at piece by piece. A check returns findings and leaves everything as it was."""
