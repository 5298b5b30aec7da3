"""The corpus that is made where it is used, without a network."""
