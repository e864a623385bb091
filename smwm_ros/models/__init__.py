"""World models in four slots: encoder, dynamics, inverse, objective terms."""
