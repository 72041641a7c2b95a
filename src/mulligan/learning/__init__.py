"""Learning: advantages and losses (pure), packing, and the learner that applies them."""
