"""The model's square to a prediction, with everything the card says of it."""
