"""From luma to colour: the generator, its smoothing over time, and painting."""
