"""The checks of the doctor. A check returns findings and changes nothing."""
